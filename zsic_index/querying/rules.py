"""From probabilities to answers: thresholds, and "none of these" with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from zsic_index.embedding_arrays import Bool, Float64
from zsic_index.errors import InputError
from zsic_index.formats.text import percent


@dataclass(frozen=True, slots=True, eq=False)
class RuleInput:
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

    def rejects(self, answers: RuleInput) -> Bool:
        """Return (B,) whether each image is rejected."""
        ...

    def reason(self, answers: RuleInput, image: int) -> str:
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

    def rejects(self, answers: RuleInput) -> Bool:
        """Return (B,) whether each image is rejected."""
        return np.asarray(answers.probabilities[:, 0] < self.floor)

    def reason(self, answers: RuleInput, image: int) -> str:
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

    def rejects(self, answers: RuleInput) -> Bool:
        """Return (B,) whether each image is rejected.

        Raises:
            InputError: when only the best of several labels is given.
        """
        if answers.labels == 1:
            return np.zeros(len(answers.probabilities), dtype=np.bool_)
        if answers.probabilities.shape[1] < 2:
            raise InputError("a margin needs the two most probable labels: ask for a top_k of 2")
        return np.asarray(self._margins(answers) < self.margin)

    def reason(self, answers: RuleInput, image: int) -> str:
        """Say why an image is rejected."""
        return (
            f"the best label is {percent(float(self._margins(answers)[image]))} ahead of the "
            f"second, below {percent(self.margin)}"
        )

    @staticmethod
    def _margins(answers: RuleInput) -> Float64:
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

    def rejects(self, answers: RuleInput) -> Bool:
        """Return (B,) whether each image is rejected.

        Raises:
            InputError: when there are no negative labels.
        """
        if answers.negative_mass is None:
            raise InputError("a limit on negative labels needs negative labels: give some")
        return np.asarray(answers.negative_mass > self.limit)

    def reason(self, answers: RuleInput, image: int) -> str:
        """Say why an image is rejected."""
        assert answers.negative_mass is not None, "nothing is rejected without negative labels"
        return (
            f"negative labels have {percent(float(answers.negative_mass[image]))}, "
            f"above {percent(self.limit)}"
        )


def reject(answers: RuleInput, rules: Sequence[Rule]) -> list[str | None]:
    """Return for each image why it shows none of the labels, by the first rule that says so.

    Returns:
        B reasons; None for an image that no rule rejects.
    """
    reasons: list[str | None] = [None] * len(answers.probabilities)
    for rule in rules:
        for image in np.flatnonzero(rule.rejects(answers)).tolist():
            reasons[image] = reasons[image] or rule.reason(answers, image)
    return reasons


def _check_fraction(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{what} is {value}; it must be from 0 to 1")
