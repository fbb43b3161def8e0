"""Names of ranks, and which is above which."""

from __future__ import annotations

import re
from collections.abc import Mapping

USUAL = (
    "realm",
    "domain",
    "superkingdom",
    "kingdom",
    "subkingdom",
    "infrakingdom",
    "superphylum",
    "phylum",
    "division",
    "subphylum",
    "subdivision",
    "infraphylum",
    "superclass",
    "class",
    "subclass",
    "infraclass",
    "cohort",
    "superorder",
    "order",
    "suborder",
    "infraorder",
    "parvorder",
    "superfamily",
    "family",
    "subfamily",
    "supertribe",
    "tribe",
    "subtribe",
    "genus",
    "subgenus",
    "section",
    "subsection",
    "series",
    "species",
    "subspecies",
    "variety",
    "subvariety",
    "form",
    "cultivar",
)
"""Ranks as biologists use them, from the top down; a column of that name is a rank."""

NULLS = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "Null", "NULL"))
"""What stands in a cell where there is nothing to say."""

_DEPTH = re.compile(r"depth (\d+)")


def ordered(mean_levels: Mapping[str, float]) -> tuple[str, ...]:
    """Return ranks from the top down.

    Args:
        mean_levels: each rank, and the mean level of its nodes (0 for a root).

    Returns:
        In biologists' order where all are theirs; else by mean level, ties as they were given.
    """
    place = {rank: position for position, rank in enumerate(USUAL)}
    if mean_levels.keys() <= place.keys():
        return tuple(sorted(mean_levels, key=place.__getitem__))
    return tuple(sorted(mean_levels, key=mean_levels.__getitem__))


def depth_name(depth: int) -> str:
    """Return what a depth is called where a rank is asked for."""
    return f"depth {depth}"


def depth_of(name: str) -> int | None:
    """Return the depth that ``name`` calls by ``depth_name``; None when it is a rank's name."""
    found = _DEPTH.fullmatch(name)
    return int(found[1]) if found else None
