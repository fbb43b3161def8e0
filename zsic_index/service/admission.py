"""Who gets in: so many requests and so many bytes at a time, and the next is refused at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from zsic_index.service.metrics import Metrics
from zsic_index.service.problems import RETRY_AFTER
from zsic_index.web import RefusedError


class Admission:
    """A semaphore that nobody waits for; used in the event loop alone.

    Args:
        max_requests: requests at a time.
        max_bytes: bytes of their bodies.
        metrics: is told how many there are.
    """

    def __init__(self, max_requests: int, max_bytes: int, metrics: Metrics) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._requests = 0
        self._bytes = 0

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Let a request with a body of at most ``size`` bytes in, until this is left.

        Raises:
            RefusedError: 429 when the service is full.
        """
        # One alone may take all: its own limit is another one's affair.
        is_full = self._requests >= self._max_requests or (
            self._bytes and self._bytes + size > self._max_bytes
        )
        if is_full:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self._requests} requests of at most {self._max_requests} are being answered: "
                f"try again in {RETRY_AFTER} s",
                {"Retry-After": RETRY_AFTER},
            )
        self._change(1, size)
        try:
            yield
        finally:
            self._change(-1, -size)

    def _change(self, requests: int, size: int) -> None:
        self._requests += requests
        self._bytes += size
        self._metrics.in_progress.set(self._requests)
        self._metrics.pending_bytes.set(self._bytes)
