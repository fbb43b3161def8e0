"""Comparison of names: folding and did-you-mean suggestions."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_LEAST_SCORE = 60
"""Minimum fuzzy score (0 to 100) for a did-you-mean suggestion."""


def fold_name(name: str) -> str:
    """Return a name in NFKC form and without case."""
    return unicodedata.normalize("NFKC", name).casefold()


def suggest_names(name: str, names: Iterable[str], least_score: float = _LEAST_SCORE) -> str:
    """Return ``; nearest: ...`` with up to three similar names for a message, or an empty string.

    Args:
        name: the mistyped name.
        names: names to choose from.
        least_score: minimum fuzzy score, 0 to 100.
    """
    import rapidfuzz

    matches = rapidfuzz.process.extract(name, list(names), limit=3, score_cutoff=least_score)
    return "; nearest: " + ", ".join(repr(match) for match, *_ in matches) if matches else ""
