"""From probabilities to answers: thresholds, and "none of these" with a reason."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from zsic_index.embedding_arrays import Bool, Float64
from zsic_index.errors import InputError
from zsic_index.formats.tables import Row, read_rows
from zsic_index.formats.text import percent
from zsic_index.taxonomy.names import folded

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
    for row in read_rows(path, ["threshold"]):
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


def _threshold(row: Row) -> float:
    written = row.values.get("threshold", "")
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise InputError(f"{row.place}: threshold {written!r} is not a number from 0 to 1")
    return number


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a rule decides on, for B images.

    Attributes:
        probabilities: (B, k) float64 of the most probable labels, best first; k at least 1.
        labels: how many labels there are in all.
        negative_mass: (B,) float64: under softmax the probability of all negative labels together,
            under sigmoid that of the most probable one; None without negative labels.
    """

    probabilities: Float64
    labels: int
    negative_mass: Float64 | None = None


class Rule(Protocol):
    """Decides which images show none of the labels."""

    def rejects(self, answers: Answers) -> Bool:
        """Return (B,) whether each image is rejected."""
        ...

    def reason(self, answers: Answers, image: int) -> str:
        """Say why an image is rejected."""
        ...


@dataclass(frozen=True, slots=True)
class LeastProbability:
    """Rejects where the best label's probability is below a floor.

    Under softmax this is maximum concept matching (Ming et al. 2022, arXiv 2211.13445).

    Attributes:
        floor: from 0 to 1.
    """

    floor: float

    def __post_init__(self) -> None:
        _check_fraction("floor", self.floor)

    def rejects(self, answers: Answers) -> Bool:
        """Return (B,) whether each image is rejected."""
        return np.asarray(answers.probabilities[:, 0] < self.floor)

    def reason(self, answers: Answers, image: int) -> str:
        """Say why an image is rejected."""
        return (
            f"the best label has {percent(float(answers.probabilities[image, 0]))}, "
            f"below {percent(self.floor)}"
        )


@dataclass(frozen=True, slots=True)
class LeastMargin:
    """Rejects where the best label's probability is too near to the second's.

    With a single label there is no second, and nothing is rejected.

    Attributes:
        margin: from 0 to 1.
    """

    margin: float

    def __post_init__(self) -> None:
        _check_fraction("margin", self.margin)

    def rejects(self, answers: Answers) -> Bool:
        """Return (B,) whether each image is rejected.

        Raises:
            InputError: when only the best of several labels is given.
        """
        if answers.labels == 1:
            return np.zeros(len(answers.probabilities), dtype=np.bool_)
        if answers.probabilities.shape[1] < 2:
            raise InputError("a margin needs the two most probable labels: ask for a top_k of 2")
        return np.asarray(self._margins(answers) < self.margin)

    def reason(self, answers: Answers, image: int) -> str:
        """Say why an image is rejected."""
        return (
            f"the best label is {percent(float(self._margins(answers)[image]))} ahead of the "
            f"second, below {percent(self.margin)}"
        )

    @staticmethod
    def _margins(answers: Answers) -> Float64:
        return np.asarray(answers.probabilities[:, 0] - answers.probabilities[:, 1])


@dataclass(frozen=True, slots=True)
class MostNegativeMass:
    """Rejects where negative labels have too much of the probability.

    Attributes:
        limit: from 0 to 1; what is above it is rejected.
    """

    limit: float

    def __post_init__(self) -> None:
        _check_fraction("limit", self.limit)

    def rejects(self, answers: Answers) -> Bool:
        """Return (B,) whether each image is rejected.

        Raises:
            InputError: when there are no negative labels.
        """
        if answers.negative_mass is None:
            raise InputError("a limit on negative labels needs negative labels: give some")
        return np.asarray(answers.negative_mass > self.limit)

    def reason(self, answers: Answers, image: int) -> str:
        """Say why an image is rejected."""
        assert answers.negative_mass is not None, "nothing is rejected without negative labels"
        return (
            f"negative labels have {percent(float(answers.negative_mass[image]))}, "
            f"above {percent(self.limit)}"
        )


def reject(answers: Answers, rules: Sequence[Rule]) -> list[str | None]:
    """Return for each image why it shows none of the labels, by the first rule that says so.

    Returns:
        B reasons; None for an image that no rule rejects.
    """
    reasons: list[str | None] = [None] * len(answers.probabilities)
    for rule in rules:
        for image in np.flatnonzero(rule.rejects(answers)).tolist():
            reasons[image] = reasons[image] or rule.reason(answers, image)
    return reasons


@dataclass(frozen=True, slots=True)
class RefusedNegative:
    """A negative label that would reject images of a real one.

    Attributes:
        name: the negative label.
        label: the real one.
        reason: what the one is to the other, as a sentence.
    """

    name: str
    label: str
    reason: str


def refuse_negatives(
    negatives: Iterable[str],
    names: Mapping[str, str],
    ancestors: Mapping[str, Collection[str]],
) -> tuple[list[str], list[RefusedNegative]]:
    """Tell negative labels that can be used from those that are, or are below, a real label.

    Such a one takes probability from images that do show the label (NegRefine, Ansari et al. 2025,
    arXiv 2507.09795). Names are compared without regard to case, Unicode form and spaces.

    Args:
        negatives: names of negative labels.
        names: every name of a real label, its aliases and translations included → the label.
        ancestors: negative label → the names of all that is above it, as far as that is known.

    Returns:
        Those that can be used, in order, and those that are refused.
    """
    real = {_folded(name): label for name, label in names.items()}
    above = {_folded(name): found for name, found in ancestors.items()}
    kept: list[str] = []
    refused: list[RefusedNegative] = []
    for name in negatives:
        own = _folded(name)
        parent = next((a for a in above.get(own, ()) if _folded(a) in real), None)
        if own in real:
            label = real[own]
            same = "is a label" if _folded(label) == own else f"is another name of {label!r}"
            refused.append(RefusedNegative(name, label, f"negative label {name!r} {same}"))
        elif parent is not None:
            label = real[_folded(parent)]
            reason = f"negative label {name!r} is a kind of {label!r}, which is a label"
            refused.append(RefusedNegative(name, label, reason))
        else:
            kept.append(name)
    return kept, refused


def _folded(name: str) -> str:
    return " ".join(folded(name).split())


def _check_fraction(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{what} is {value}; it must be from 0 to 1")
