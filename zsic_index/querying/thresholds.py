"""Probabilities from which a label is accepted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zsic_index.errors import InputError
from zsic_index.formats.tables import TableRow, read_rows

EVERY = "*"
"""Stands in a thresholds file for every label."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Probabilities from which on a label is accepted; the nearest one counts.

    Attributes:
        overall: for labels that have no nearer one; 0 accepts all.
        ranks: rank → threshold of all its labels.
        labels: label → its own threshold.
    """

    overall: float = 0.0
    ranks: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, float] = field(default_factory=dict)

    def of(self, label: str, rank: str | None = None) -> float:
        """Return the threshold of a label: its own, or else its rank's, or else the overall one."""
        if label in self.labels:
            return self.labels[label]
        if rank is not None and rank in self.ranks:
            return self.ranks[rank]
        return self.overall


def read_thresholds(path: str | Path) -> Thresholds:
    """Read a thresholds file.

    A ``.csv`` or ``.tsv`` has the columns ``label``, ``threshold`` and, if wanted, ``rank``; a
    ``.json`` is a list of objects with the same keys. Each row has either a label (``*`` for every
    label) or a rank.

    Raises:
        InputError: for a file that cannot be read, a row with both or neither, a threshold that is
            no number from 0 to 1, or a label or rank that comes twice; it names the line.
    """
    path = Path(path)
    found: dict[str, dict[str, float]] = {"label": {}, "rank": {}}
    for row in read_rows(path, ("threshold",), ("label", "rank")):
        kinds = [kind for kind in found if kind in row.values]
        if len(kinds) != 1:
            raise InputError(
                f"{row.place}: has {'both a label and a rank' if kinds else 'no label and no rank'}"
                f"; give one of them ({EVERY} as the label stands for all)"
            )
        kind, name = kinds[0], row.values[kinds[0]]
        if name in found[kind]:
            raise InputError(f"{row.place}: the {kind} {name!r} has a threshold already")
        found[kind][name] = _threshold(row)
    if not any(found.values()):
        raise InputError(f"{path}: no thresholds in it; give at least one")
    overall = found["label"].pop(EVERY, 0.0)
    return Thresholds(overall, found["rank"], found["label"])


def _threshold(row: TableRow) -> float:
    written = row.values.get("threshold", "")
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise InputError(f"{row.place}: threshold {written!r} is not a number from 0 to 1")
    return number
