"""Comparing names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_NEAR = 60
"""Names that are less alike than this (of 100) are no help to someone who mistyped one."""


def folded(name: str) -> str:
    """Return what is left of a name when case and Unicode form do not count."""
    return unicodedata.normalize("NFKC", name).casefold()


def nearest(name: str, names: Iterable[str], least: float = _NEAR) -> str:
    """Return a piece of a message that names those most like ``name``; empty when none is.

    Args:
        name: what was mistyped.
        names: what there is.
        least: how like it they must be, of 100.
    """
    import rapidfuzz

    near = rapidfuzz.process.extract(name, list(names), limit=3, score_cutoff=least)
    return "; nearest: " + ", ".join(repr(found) for found, *_ in near) if near else ""
