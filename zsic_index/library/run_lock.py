"""The lock that allows one run at a time on a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from zsic_index.errors import StoreError

_NAME = "library.lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a store's photo libraries; the system releases it when a process dies.

    Raises:
        StoreError: when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _NAME, timeout=0):
            yield
    except Timeout:
        raise StoreError(
            f"{folder / _NAME}: another run is at work on this store: wait for it, or stop it"
        ) from None
