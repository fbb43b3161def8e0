"""Rules that reject images that show none of the labels, each with a reason."""

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
    """Probabilities of B images that rules decide on.

    Attributes:
        probabilities: (B, k) float64 of the most probable labels, best first; k at least 1.
        labels: number of all labels, N.
        negative_mass: (B,) float64: under softmax the probability of all negative labels together,
            under sigmoid that of the most probable one; None without negative labels.
    """

    probabilities: Float64
    labels: int
    negative_mass: Float64 | None = None


class Rule(Protocol):
    """Interface of a rule that rejects images."""

    def rejects(self, rule_input: RuleInput) -> Bool:
        """Return a (B,) mask of the rejected images."""
        ...

    def reason(self, rule_input: RuleInput, image: int) -> str:
        """Return why an image is rejected, given its position in the batch."""
        ...


@dataclass(frozen=True, slots=True)
class LeastProbability:
    """Rule that rejects an image if its best label's probability is below a floor.

    Under softmax this is maximum concept matching (Ming et al. 2022, arXiv 2211.13445).

    Attributes:
        floor: least probability of the best label, from 0 to 1.
    """

    floor: float

    def __post_init__(self) -> None:
        _check_fraction("floor", self.floor)

    def rejects(self, rule_input: RuleInput) -> Bool:
        """Return a (B,) mask of the rejected images."""
        return np.asarray(rule_input.probabilities[:, 0] < self.floor)

    def reason(self, rule_input: RuleInput, image: int) -> str:
        """Return why an image is rejected, given its position in the batch."""
        return (
            f"the best label has {percent(float(rule_input.probabilities[image, 0]))}, "
            f"below {percent(self.floor)}"
        )


@dataclass(frozen=True, slots=True)
class LeastMargin:
    """Rule that rejects an image if its best label is too close to the second.

    An index with a single label has no second, and nothing is rejected.

    Attributes:
        margin: least difference of the two probabilities, from 0 to 1.
    """

    margin: float

    def __post_init__(self) -> None:
        _check_fraction("margin", self.margin)

    def rejects(self, rule_input: RuleInput) -> Bool:
        """Return a (B,) mask of the rejected images.

        Raises:
            InputError: if only the best of several labels is given.
        """
        if rule_input.labels == 1:
            return np.zeros(len(rule_input.probabilities), dtype=np.bool_)
        if rule_input.probabilities.shape[1] < 2:
            raise InputError("a margin needs the two most probable labels: ask for a top_k of 2")
        return np.asarray(self._margins(rule_input) < self.margin)

    def reason(self, rule_input: RuleInput, image: int) -> str:
        """Return why an image is rejected, given its position in the batch."""
        return (
            f"the best label is {percent(float(self._margins(rule_input)[image]))} ahead of the "
            f"second, below {percent(self.margin)}"
        )

    @staticmethod
    def _margins(rule_input: RuleInput) -> Float64:
        return np.asarray(rule_input.probabilities[:, 0] - rule_input.probabilities[:, 1])


@dataclass(frozen=True, slots=True)
class MostNegativeMass:
    """Rule that rejects an image if negative labels have too much of the probability.

    Attributes:
        limit: greatest probability of the negative labels, from 0 to 1.
    """

    limit: float

    def __post_init__(self) -> None:
        _check_fraction("limit", self.limit)

    def rejects(self, rule_input: RuleInput) -> Bool:
        """Return a (B,) mask of the rejected images.

        Raises:
            InputError: if there are no negative labels.
        """
        if rule_input.negative_mass is None:
            raise InputError("a limit on negative labels needs negative labels: give some")
        return np.asarray(rule_input.negative_mass > self.limit)

    def reason(self, rule_input: RuleInput, image: int) -> str:
        """Return why an image is rejected, given its position in the batch."""
        assert rule_input.negative_mass is not None, "nothing is rejected without negative labels"
        return (
            f"negative labels have {percent(float(rule_input.negative_mass[image]))}, "
            f"above {percent(self.limit)}"
        )


def reject(rule_input: RuleInput, rules: Sequence[Rule]) -> list[str | None]:
    """Return the reason of the first rule that rejects each image.

    Returns:
        B reasons; None for an image that no rule rejects.
    """
    reasons: list[str | None] = [None] * len(rule_input.probabilities)
    for rule in rules:
        for image in np.flatnonzero(rule.rejects(rule_input)).tolist():
            reasons[image] = reasons[image] or rule.reason(rule_input, image)
    return reasons


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}; it must be from 0 to 1")
