"""Edits to bytes, and how to take them back.

An edit says what to put in the place of a stretch of bytes. From the edits that lead from one text
to another, and those that lead from the same text to a third, follow the edits between these two,
without comparing them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Bytes ``start`` to ``end`` become ``text``; with ``start == end`` it is put in between."""

    start: int
    end: int
    text: bytes = b""


def apply(data: bytes, edits: Iterable[Edit]) -> bytes:
    """Return ``data`` with edits made, none of which may overlap.

    Edits at the same place are made in the order that they are given in.
    """
    parts = []
    done = 0
    for edit in _in_order(edits):
        assert edit.start >= done, "edits overlap"
        parts += [data[done : edit.start], edit.text]
        done = edit.end
    return b"".join([*parts, data[done:]])


def between(data: bytes, one: Iterable[Edit], other: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return the edits that lead from ``apply(data, one)`` to ``apply(data, other)``."""
    one, other = list(one), list(other)
    found = []
    shift = 0
    for start, end in _stretches([*one, *other]):
        texts = [
            apply(data[start:end], [Edit(e.start - start, e.end - start, e.text) for e in edits])
            for edits in (
                [edit for edit in side if start <= edit.start and edit.end <= end]
                for side in (one, other)
            )
        ]
        if texts[0] != texts[1]:
            found.append(Edit(start + shift, start + shift + len(texts[0]), texts[1]))
        shift += len(texts[0]) - (end - start)
    return tuple(found)


def _in_order(edits: Iterable[Edit]) -> list[Edit]:
    return sorted(edits, key=lambda edit: (edit.start, edit.end))


def _stretches(edits: list[Edit]) -> list[tuple[int, int]]:
    """Return the stretches that edits touch; those that meet are one."""
    found: list[tuple[int, int]] = []
    for edit in _in_order(edits):
        if found and edit.start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], edit.end))
        else:
            found.append((edit.start, edit.end))
    return found
