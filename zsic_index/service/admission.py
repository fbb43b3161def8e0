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

    A request takes bytes as its body arrives, and one of the places when it has arrived: clients
    that send slowly, or only promise a body, take nothing from the others.

    Args:
        max_requests: maximum number of concurrent requests whose bodies have arrived.
        max_bytes: maximum size of all bodies together.
        metrics: metrics to update.
    """

    def __init__(self, max_requests: int, max_bytes: int, metrics: Metrics) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._requests = 0
        self._bytes = 0

    @contextmanager
    def admitted(self, size: int) -> Iterator[Admitted]:
        """Admit a request for the duration of the context.

        Args:
            size: declared size of its body in bytes, 0 if it is unknown.

        Raises:
            RefusedError: 429 if the service is full.
        """
        self._check_places()
        self._check_bytes(size, own=0)
        admitted = Admitted(self)
        self._metrics.in_progress.inc()
        try:
            yield admitted
        finally:
            self._metrics.in_progress.dec()
            self._add_bytes(-admitted.size)
            self._requests -= admitted.has_place

    def charge(self, admitted: Admitted, size: int) -> None:
        """Charge a request for more bytes; see ``Admitted.charge``."""
        self._check_bytes(size, own=admitted.size)
        admitted.size += size
        self._add_bytes(size)

    def take_place(self, admitted: Admitted) -> None:
        """Give a request one of the places; see ``Admitted.take_place``."""
        self._check_places()
        admitted.has_place = True
        self._requests += 1

    def _check_places(self) -> None:
        if self._requests >= self._max_requests:
            raise _full(
                f"{self._requests} requests of at most {self._max_requests} are being answered"
            )

    def _check_bytes(self, size: int, own: int) -> None:
        # A single request may use the whole byte budget; max_body limits it separately.
        if self._bytes > own and self._bytes + size > self._max_bytes:
            raise _full(
                f"{self._bytes:,} of at most {self._max_bytes:,} bytes of bodies are in memory"
            )

    def _add_bytes(self, size: int) -> None:
        self._bytes += size
        self._metrics.pending_bytes.set(self._bytes)


class Admitted:
    """An admitted request.

    Attributes:
        size: bytes of its body that have arrived, decompressed.
        has_place: whether it has one of the places.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size = 0
        self.has_place = False

    def charge(self, size: int) -> None:
        """Add bytes of the body that have arrived.

        Raises:
            RefusedError: 429 if all bodies together exceed the limit.
        """
        self._admission.charge(self, size)

    def take_place(self) -> None:
        """Take one of the places, to be answered.

        Raises:
            RefusedError: 429 if there is none left.
        """
        self._admission.take_place(self)


def _full(reason: str) -> RefusedError:
    return RefusedError(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{reason}: try again in {RETRY_AFTER} s",
        {"Retry-After": RETRY_AFTER},
    )
