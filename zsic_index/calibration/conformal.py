"""Sets of labels that hold the right one as often as wanted: split conformal prediction.

The sets are those of LAC, least ambiguous classifiers (Sadinle, Lei & Wasserman 2019,
arXiv 1609.00451): all labels at least as probable as a limit. Of the usual kinds it is the one for
very many labels:

- It needs one number per calibration image, the probability of the right label. Adaptive sets (APS,
  RAPS; Romano et al. 2020, Angelopoulos et al. 2021) need that label's rank among all N and the
  mass above it.
- No more than 1 / limit labels of a softmax can reach the limit, so that many of the most probable
  ones are proven to hold the whole set. APS adds labels until a mass is reached, however many that
  takes; RAPS holds them back with two more numbers to tune.
- The sets are as small on average as the probabilities allow. With builtin:clip on drawings of
  Emoji One (v1), 90 % sets over 1,623 labels held 10 labels on average, those of APS 50.
- Whether a label belongs to a set does not depend on the others: no ties to break, nothing random.

The price: coverage is kept over all images, not for easy and hard ones each, and a set may be
empty, where no label is probable enough.
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
    """The prediction sets of B images: the first ``sizes`` of each image's labels, best first.

    Attributes:
        sizes: (B,) int64, 0 to k.
        complete: (B,) whether no label beyond the k given can belong to the set.
    """

    sizes: Int64
    complete: Bool


@dataclass(frozen=True, slots=True)
class ConformalLimit:
    """The probability from which on labels belong to the set.

    Attributes:
        coverage: how often sets are to hold the right label.
        limit: in (0, 1].
        images: how many images it was fitted on.
    """

    coverage: float
    limit: float
    images: int

    @property
    def largest_set(self) -> int:
        """The most labels that a set can have under softmax."""
        return math.floor(1 / self.limit)

    def sets(self, probabilities: Float64, remaining: Float64 | None = None) -> ConformalSets:
        """Return each image's prediction set.

        Args:
            probabilities: (B, k) of the most probable labels, best first, by the same model and
                calibration as those that the limit was fitted on.
            remaining: (B,) mass of all other labels, under softmax; None where they may have any
                probability up to the k-th, as under sigmoid.
        """
        probabilities = np.asarray(probabilities, dtype=np.float64)
        inside = probabilities >= self.limit
        # One of the others can be as probable as the last one given, if the mass left allows it.
        room = ~inside[:, -1] if remaining is None else ~inside[:, -1] | (remaining < self.limit)
        return ConformalSets(inside.sum(axis=1), room)


def fit_conformal(right: Float64, coverage: float) -> ConformalLimit:
    """Find the limit at which a new image's right label is in its set with the wanted probability.

    With n images the set's limit is the j-th lowest probability of a right label,
    j = floor((n + 1) (1 - coverage)): the finite-sample correction. If the new image comes from the
    same source as these, in any order, coverage is at least what is wanted, and at most 1 / (n + 1)
    more where no two probabilities are equal.

    Args:
        right: (n,) probability of each image's right label; of several right ones the least, for
            sets that hold all of them. The images must be others than those that the probabilities
            were calibrated on.
        coverage: above 0 and below 1.

    Raises:
        InputError: for numbers out of range, or too few images for that coverage.
    """
    right = np.asarray(right, dtype=np.float64)
    if right.ndim != 1:
        raise InputError(f"probabilities of right labels have shape {right.shape}; give (n,)")
    if not np.all((right >= 0) & (right <= 1)):
        raise InputError("a probability of a right label is not in [0, 1]")
    if not 0 < coverage < 1:
        raise InputError(f"coverage is {coverage}; it must be above 0 and below 1")
    # As it is written: 1 - 0.9 is not exactly 0.1.
    miss = 1 - Fraction(repr(float(coverage)))
    place = math.floor((len(right) + 1) * miss)
    if place < 1:
        raise InputError(
            f"{len(right)} images are too few for a coverage of {coverage:g}: "
            f"give at least {math.ceil(1 / miss) - 1}"
        )
    limit = float(np.partition(right, place - 1)[place - 1])
    # A limit of 0 lets every label in; so does the least positive number.
    return ConformalLimit(float(coverage), max(limit, np.finfo(np.float64).tiny), len(right))
