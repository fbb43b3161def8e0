"""Thresholds: least probabilities of accepted labels, and the files that list them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zsic_index.errors import InputError
from zsic_index.formats.tables import TableRow, read_table_rows

EVERY = "*"
"""Entry in the label column of a thresholds file that stands for every label."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Least probabilities of accepted labels; the most specific threshold of a label counts.

    Attributes:
        overall: threshold of labels without a more specific one; 0 accepts all.
        ranks: rank → threshold of its labels.
        labels: name of a label → its own threshold.
    """

    overall: float = 0.0
    ranks: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, float] = field(default_factory=dict)

    def of(self, label: str, rank: str | None = None) -> float:
        """Return the threshold of a label: its own, else its rank's, else the overall one."""
        if label in self.labels:
            return self.labels[label]
        if rank is not None and rank in self.ranks:
            return self.ranks[rank]
        return self.overall


def read_thresholds(path: str | Path) -> Thresholds:
    """Read a thresholds file.

    A ``.csv`` or ``.tsv`` has the columns ``label``, ``threshold`` and optionally ``rank``; a
    ``.json`` is a list of objects with the same keys. Each row has either a label (``*`` for every
    label) or a rank.

    Raises:
        InputError: for a file that cannot be read, a row with both or neither, a threshold that is
            not a number from 0 to 1, or a duplicate label or rank; it names the line.
    """
    path = Path(path)
    thresholds: dict[str, dict[str, float]] = {"label": {}, "rank": {}}
    for row in read_table_rows(path, ("threshold",), ("label", "rank")):
        kinds = [kind for kind in thresholds if kind in row.values]
        if len(kinds) != 1:
            raise InputError(
                f"{row.place}: has {'both a label and a rank' if kinds else 'no label and no rank'}"
                f"; give one of them ({EVERY} as the label stands for all)"
            )
        kind, name = kinds[0], row.values[kinds[0]]
        if name in thresholds[kind]:
            raise InputError(f"{row.place}: the {kind} {name!r} has a threshold already")
        thresholds[kind][name] = _parse_threshold(row)
    if not any(thresholds.values()):
        raise InputError(f"{path}: no thresholds in it; give at least one")
    overall = thresholds["label"].pop(EVERY, 0.0)
    return Thresholds(overall, thresholds["rank"], thresholds["label"])


def _parse_threshold(row: TableRow) -> float:
    text = row.values.get("threshold", "")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise InputError(f"{row.place}: threshold {text!r} is not a number from 0 to 1")
    return number
