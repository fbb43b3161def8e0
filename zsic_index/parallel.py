"""Cores, BLAS threads and batches."""

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
    """Yield lists of ``size`` values, the last one shorter, reading no further than needed."""
    remaining = iter(values)
    while batch := list(islice(remaining, size)):
        yield batch


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_blas_thread() -> AbstractContextManager[object]:
    """Limit BLAS to one thread in this context, for code that runs worker threads of its own."""
    limited: AbstractContextManager[object] = _threadpools().limit(limits=1, user_api="blas")
    return limited


@cache
def _threadpools() -> ThreadpoolController:
    """Return the loaded BLAS libraries; cached, because the search takes milliseconds."""
    return ThreadpoolController()
