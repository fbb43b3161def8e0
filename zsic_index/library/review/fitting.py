"""Fit a label's threshold to accepted and rejected photos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from zsic_index.calibration.precision import CONFIDENCE, fit_thresholds
from zsic_index.embedding_arrays import Bool, Float64
from zsic_index.errors import InputError
from zsic_index.formats.text import percent, short_percent

FEW = 3
"""Minimum number of accepted and of rejected photos for a fit."""

DEFAULT_PRECISION = 0.9


@dataclass(frozen=True, slots=True)
class FittedThreshold:
    """A threshold with its figures on the photos that it was fitted to.

    Attributes:
        threshold: lowest probability that gets the label.
        how: ``precision`` when the photos show that the requested precision is kept, else ``f1``:
            the threshold with the best F1 between accepted and rejected photos.
        precision: share of accepted photos among the decided photos above the threshold.
        recall: share of the accepted photos that are above the threshold.
        decided: number of accepted and rejected photos.
        note: a sentence for the user with these figures.
    """

    threshold: float
    how: Literal["precision", "f1"]
    precision: float
    recall: float
    decided: int
    note: str


def fit(probabilities: Float64, accepted: Bool, precision: float) -> FittedThreshold:
    """Choose the lowest threshold that keeps a precision, else the one with the best F1.

    Args:
        probabilities: (M,) probabilities of the label for the accepted and rejected photos.
        accepted: (M,) True for accepted photos, False for rejected ones.
        precision: requested precision, above 0 and below 1.

    Raises:
        InputError: for a precision out of range, or fewer than FEW accepted or rejected photos.
    """
    yes = int(accepted.sum())
    no = len(accepted) - yes
    if min(yes, no) < FEW:
        raise InputError(
            f"{yes} accepted and {no} rejected: a threshold needs at least {FEW} of each; decide "
            "about more photos, near the threshold best"
        )
    ids = np.zeros(len(accepted), dtype=np.int64)
    threshold = fit_thresholds(ids, probabilities, accepted, precision).overall
    if math.isfinite(threshold):
        note = (
            f"At least {short_percent(precision)} of the photos above are right, with "
            f"{short_percent(CONFIDENCE)} confidence, if the {len(accepted)} decided photos are "
            "representative."
        )
        figures = _figures(probabilities, accepted, threshold)
        return FittedThreshold(threshold, "precision", *figures, len(accepted), note)
    threshold = _best_f1(probabilities, accepted)
    figures = _figures(probabilities, accepted, threshold)
    least = math.ceil(NormalDist().inv_cdf(CONFIDENCE) ** 2 * precision / (1 - precision))
    note = (
        f"{len(accepted)} decided photos do not show that {short_percent(precision)} are right "
        f"above any threshold (it takes {least} of {least}, or more with a miss among them). This "
        f"is the best cut between accepted and rejected: {percent(figures[0])} of the decided "
        f"photos above are accepted, and {percent(figures[1])} of the accepted are above."
    )
    return FittedThreshold(threshold, "f1", *figures, len(accepted), note)


def _best_f1(probabilities: Float64, accepted: Bool) -> float:
    """Return the threshold with the best F1, the highest one of several."""
    order = np.argsort(-probabilities, kind="stable")
    probability, right = probabilities[order], accepted[order]
    hits = np.cumsum(right)
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + right.sum())
    # Photos of equal probability are all above a threshold or all below it.
    f1[:-1][probability[:-1] == probability[1:]] = 0
    return float(probability[np.argmax(f1)])


def _figures(probabilities: Float64, accepted: Bool, threshold: float) -> tuple[float, float]:
    """Return precision and recall at a threshold."""
    above = probabilities >= threshold
    hits = int((accepted & above).sum())
    return hits / int(above.sum()), hits / int(accepted.sum())
