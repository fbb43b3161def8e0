"""Batching: the work of many requests, done together by one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from zsic_index.errors import ZsicError

logger = logging.getLogger("zsic_index")


_PATIENCE = 5.0
"""Seconds to wait for a thread to end."""


class WorkerDiedError(ZsicError):
    """Error for an item whose thread has ended."""


@dataclass(slots=True, eq=False)
class BatchItem:
    """A unit of work that a request waits for.

    Attributes:
        future: future result; cancelled if the request is gone.
    """

    future: Future[Any] = field(default_factory=Future, kw_only=True)

    def finish(self, result: Any) -> None:
        """Set the result, or an exception in place of it."""
        try:
            if isinstance(result, BaseException):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)
        except InvalidStateError:
            pass  # the request is gone


Item = TypeVar("Item", bound=BatchItem)


class Batcher(Generic[Item]):
    """A thread that runs queued items in batches.

    While a batch is not full and more items have been announced, the thread waits a short time for
    them. Cancelled items are dropped. An exception ends the items of its batch only; if the thread
    itself ends, all queued and later items end with a WorkerDiedError.

    Args:
        name: name of the work in messages.
        run: runs a batch; it finishes each item or hands it on.
        size: maximum number of items in a batch.
        wait: seconds that the oldest item waits for announced ones.
        observe: called with the number of items in each batch.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[Item]], None],
        *,
        size: int,
        wait: float,
        observe: Callable[[int], None],
    ) -> None:
        self._name = name
        self._run = run
        self._size = size
        self._wait = wait
        self._observe = observe
        self._condition = threading.Condition()
        self._queue: deque[tuple[float, Item]] = deque()
        self._announced = 0
        self._is_open = True
        self._thread = threading.Thread(target=self._work, name=f"zsic-{name}", daemon=True)
        self._thread.start()

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Announce an item, so that a batch may wait for it, for the duration of the context."""
        with self._condition:
            self._announced += 1
        try:
            yield
        finally:
            with self._condition:
                self._announced -= 1
                self._condition.notify()

    def put(self, items: Sequence[Item]) -> None:
        """Queue items and return at once."""
        now = time.monotonic()
        with self._condition:
            if self._is_open:
                self._queue.extend((now, item) for item in items)
                self._condition.notify()
                return
        self._give_up(items)

    @property
    def waiting(self) -> int:
        """Number of queued items."""
        return len(self._queue)

    @property
    def is_alive(self) -> bool:
        """True while the thread runs."""
        return self._is_open

    def close(self) -> None:
        """Run the queued items and end the thread; a thread that hangs is abandoned."""
        with self._condition:
            self._is_open = False
            self._condition.notify()
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        batch: list[Item] = []
        try:
            while batch := self._next():
                batch = [item for item in batch if not item.future.cancelled()]
                if batch:
                    self._observe(len(batch))
                    self._do(batch)
        finally:
            with self._condition:
                self._is_open = False
                batch += [item for _, item in self._queue]
                self._queue.clear()
            self._give_up(batch)

    def _do(self, batch: list[Item]) -> None:
        try:
            self._run(batch)
        except Exception as error:
            logger.exception("%s: a batch of %d failed", self._name, len(batch))
            for item in batch:
                item.finish(error)

    def _next(self) -> list[Item]:
        """Wait for the next batch; an empty one ends the thread."""
        with self._condition:
            while not self._queue:
                if not self._is_open:
                    return []
                self._condition.wait()
            latest = self._queue[0][0] + self._wait
            while self._is_open and self._announced and len(self._queue) < self._size:
                left = latest - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    break
            return [self._queue.popleft()[1] for _ in range(min(self._size, len(self._queue)))]

    def _give_up(self, items: Sequence[Item]) -> None:
        for item in items:
            item.finish(WorkerDiedError(f"the worker for {self._name} has ended: try again later"))
