"""Limits on concurrent requests and on the size of their bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from zsic_index.service.metrics import Metrics
from zsic_index.service.problems import RETRY_AFTER
from zsic_index.web import RefusedError


class Admission:
    """A semaphore that refuses requests instead of queueing them; not thread-safe.

    Args:
        max_requests: maximum number of concurrent requests.
        max_bytes: maximum size of all their bodies together.
        metrics: metrics to update.
    """

    def __init__(self, max_requests: int, max_bytes: int, metrics: Metrics) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._requests = 0
        self._bytes = 0

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Admit a request with a body of at most ``size`` bytes for the duration of the context.

        Raises:
            RefusedError: 429 if the service is full.
        """
        # A single request may use the whole byte budget; max_body limits it separately.
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
