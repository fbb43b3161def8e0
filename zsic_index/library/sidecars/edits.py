"""Edits to bytes, and the edits that undo them.

An edit replaces a range of bytes. Given the edits that lead from one text to a second, and those
that lead from the same text to a third, the edits from the second to the third follow without
comparing the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Replacement of bytes ``start`` to ``end`` by ``text``; an insertion where both are equal."""

    start: int
    end: int
    text: bytes = b""


def apply(data: bytes, edits: Iterable[Edit]) -> bytes:
    """Return ``data`` with edits applied, none of which may overlap.

    Edits at the same position are applied in the given order.
    """
    parts = []
    done = 0
    for edit in _in_order(edits):
        assert edit.start >= done, "edits overlap"
        parts += [data[done : edit.start], edit.text]
        done = edit.end
    return b"".join([*parts, data[done:]])


def between(data: bytes, first: Iterable[Edit], second: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return the edits that lead from ``apply(data, first)`` to ``apply(data, second)``."""
    first, second = list(first), list(second)
    differences = []
    shift = 0
    for start, end in _ranges([*first, *second]):
        texts = [
            apply(data[start:end], [Edit(e.start - start, e.end - start, e.text) for e in edits])
            for edits in (
                [edit for edit in side if start <= edit.start and edit.end <= end]
                for side in (first, second)
            )
        ]
        if texts[0] != texts[1]:
            differences.append(Edit(start + shift, start + shift + len(texts[0]), texts[1]))
        shift += len(texts[0]) - (end - start)
    return tuple(differences)


def _in_order(edits: Iterable[Edit]) -> list[Edit]:
    return sorted(edits, key=lambda edit: (edit.start, edit.end))


def _ranges(edits: list[Edit]) -> list[tuple[int, int]]:
    """Return the ranges of bytes that edits touch; ranges that meet are joined."""
    ranges: list[tuple[int, int]] = []
    for edit in _in_order(edits):
        if ranges and edit.start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], edit.end))
        else:
            ranges.append((edit.start, edit.end))
    return ranges
