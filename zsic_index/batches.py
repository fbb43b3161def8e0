"""Taking many things some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Value = TypeVar("Value")


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Yield values in lists of ``size``, the last one shorter; read only as far as asked for."""
    remaining = iter(values)
    while batch := list(islice(remaining, size)):
        yield batch
