"""Prediction sets that hold the correct label with a given frequency: split conformal prediction.

The sets are those of LAC, least ambiguous classifiers (Sadinle, Lei & Wasserman 2019,
arXiv 1609.00451): all labels at least as probable as a limit. Of the usual kinds of sets these suit
very many labels best:

- They need one number per calibration image, the probability of the correct label. Adaptive sets
  (APS, RAPS; Romano et al. 2020, Angelopoulos et al. 2021) need that label's rank among all N and
  the mass above it.
- At most 1 / limit labels of a softmax can reach the limit, so a query for that many labels returns
  the whole set. APS adds labels until a mass is reached, with no bound on their number; RAPS limits
  them by two more parameters that need tuning.
- The sets are as small on average as the probabilities allow. With builtin:clip on drawings of
  Emoji One (v1), 90 % sets over 1,623 labels held 10 labels on average, those of APS 50.
- Whether a label belongs to a set does not depend on the other labels: there are no ties to break
  and nothing is random.

The price: coverage holds over all images, not separately for easy and hard ones, and a set is empty
where no label is probable enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from zsic_index.embedding_arrays import Bool, Float64, Int64
from zsic_index.errors import InputError


@dataclass(frozen=True, slots=True)
class ConformalSets:
    """Prediction sets of B images: the ``sizes`` most probable labels of each image.

    Attributes:
        sizes: (B,) int64, 0 to k.
        complete: (B,) True where no label beyond the given k can belong to the set.
    """

    sizes: Int64
    complete: Bool


@dataclass(frozen=True, slots=True)
class ConformalLimit:
    """Probability from which labels belong to a prediction set.

    Attributes:
        coverage: fraction of images whose set should hold the correct label.
        limit: the probability, in (0, 1].
        images: number of images that it was fitted on.
    """

    coverage: float
    limit: float
    images: int

    @property
    def largest_set(self) -> int:
        """Maximum number of labels in a set under softmax."""
        return math.floor(1 / self.limit)

    def sets(self, probabilities: Float64, remaining: Float64 | None = None) -> ConformalSets:
        """Return the prediction sets of B images.

        Args:
            probabilities: (B, k) of the most probable labels, best first, from the same model and
                calibration as those that the limit was fitted on.
            remaining: (B,) total probability of all other labels, under softmax; None where each
                may be as probable as the k-th, as under sigmoid.
        """
        probabilities = np.asarray(probabilities, dtype=np.float64)
        inside = probabilities >= self.limit
        # A label beyond the first k is at most as probable as the k-th, and as all others together.
        complete = (
            ~inside[:, -1] if remaining is None else ~inside[:, -1] | (remaining < self.limit)
        )
        return ConformalSets(inside.sum(axis=1), complete)


def fit_conformal(correct: Float64, coverage: float) -> ConformalLimit:
    """Find the limit at which a new image's set holds its correct label with a given probability.

    With n images the limit is the j-th lowest probability of a correct label, where
    j = floor((n + 1) (1 - coverage)): the finite-sample correction. If the new image is
    exchangeable with these, the coverage is at least the given one, and if no two probabilities are
    equal at most 1 / (n + 1) more.

    Args:
        correct: (n,) probability of each image's correct label; of several the lowest, for sets
            that hold all of them. Not of images that the probabilities were calibrated on.
        coverage: above 0 and below 1.

    Raises:
        InputError: for numbers out of range, or too few images for that coverage.
    """
    correct = np.asarray(correct, dtype=np.float64)
    if correct.ndim != 1:
        raise InputError(f"probabilities of right labels have shape {correct.shape}; give (n,)")
    if not np.all((correct >= 0) & (correct <= 1)):
        raise InputError("a probability of a right label is not in [0, 1]")
    if not 0 < coverage < 1:
        raise InputError(f"coverage is {coverage}; it must be above 0 and below 1")
    # Exact decimal arithmetic: in floating point 1 - 0.9 is not 0.1.
    miss = 1 - Fraction(repr(float(coverage)))
    place = math.floor((len(correct) + 1) * miss)
    if place < 1:
        raise InputError(
            f"{len(correct)} images are too few for a coverage of {coverage:g}: "
            f"give at least {math.ceil(1 / miss) - 1}"
        )
    limit = float(np.partition(correct, place - 1)[place - 1])
    # The limit must be positive; like 0, the smallest positive number admits every label.
    return ConformalLimit(float(coverage), max(limit, np.finfo(np.float64).tiny), len(correct))
