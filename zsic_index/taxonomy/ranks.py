"""Names of ranks and their order."""

from __future__ import annotations

import re
from collections.abc import Mapping

USUAL_RANKS = (
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
"""Biological ranks from the top down; a column of a table with such a title holds a rank."""

NULL_CELLS = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "Null", "NULL"))
"""Cells of a table that count as empty."""

_DEPTH = re.compile(r"depth (\d+)")


def order_ranks(mean_levels: Mapping[str, float]) -> tuple[str, ...]:
    """Return ranks from the top down.

    Args:
        mean_levels: rank → mean level of its nodes (0 for a root).

    Returns:
        The ranks in the order of ``USUAL_RANKS`` if all are in there; else by mean level, ties in
        the order given.
    """
    positions = {rank: position for position, rank in enumerate(USUAL_RANKS)}
    if mean_levels.keys() <= positions.keys():
        return tuple(sorted(mean_levels, key=positions.__getitem__))
    return tuple(sorted(mean_levels, key=mean_levels.__getitem__))


def name_depth(depth: int) -> str:
    """Return the name of a depth, for use in place of a rank: ``depth 2``."""
    return f"depth {depth}"


def parse_depth(name: str) -> int | None:
    """Return the depth in a name such as ``depth 2``; None for the name of a rank."""
    match = _DEPTH.fullmatch(name)
    return int(match[1]) if match else None
