"""Cores, BLAS threads and batches: how work is shared out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from itertools import islice
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Value = TypeVar("Value")


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Yield values in lists of ``size``, the last one shorter; read only as far as asked for."""
    remaining = iter(values)
    while batch := list(islice(remaining, size)):
        yield batch


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_blas_thread() -> AbstractContextManager[object]:
    """Keep BLAS to one thread meanwhile: for worker threads that are the parallelism."""
    limited: AbstractContextManager[object] = _threadpools().limit(limits=1, user_api="blas")
    return limited


@cache
def _threadpools() -> ThreadpoolController:
    """Look the loaded BLAS libraries up once; the search takes milliseconds."""
    return ThreadpoolController()
