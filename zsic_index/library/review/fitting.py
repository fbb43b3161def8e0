"""A label's threshold from photos that were accepted and rejected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from zsic_index.calibration.precision import CONFIDENCE, thresholds_for_precision
from zsic_index.embedding_arrays import Bool, Float64
from zsic_index.errors import InputError

FEW = 3
"""Accepted and rejected photos that there have to be, of each."""

DEFAULT_PRECISION = 0.9


@dataclass(frozen=True, slots=True)
class FittedThreshold:
    """A threshold, and how good it is on the photos that it was fitted to.

    Attributes:
        threshold: the probability of the least probable photo that is to get the label.
        how: ``precision`` where the photos show that the wanted precision is kept; ``f1`` where
            they do not, and it is the cut with the best F1 between accepted and rejected.
        precision: the share of accepted ones among the decided photos above.
        recall: the share of all accepted photos that are above.
        decided: how many photos were accepted or rejected.
        note: the same in a sentence.
    """

    threshold: float
    how: Literal["precision", "f1"]
    precision: float
    recall: float
    decided: int
    note: str


def fit(probabilities: Float64, accepted: Bool, wanted: float) -> FittedThreshold:
    """Choose a threshold.

    Args:
        probabilities: (M,) of the label, for the photos that were decided about.
        accepted: (M,) whether each was accepted; the others were rejected.
        wanted: the precision, above 0 and below 1.

    Raises:
        InputError: for a precision out of range, or fewer than FEW photos of a kind.
    """
    yes = int(accepted.sum())
    no = len(accepted) - yes
    if min(yes, no) < FEW:
        raise InputError(
            f"{yes} accepted and {no} rejected: a threshold needs at least {FEW} of each; decide "
            "about more photos, near the threshold best"
        )
    ids = np.zeros(len(accepted), dtype=np.int64)
    kept = thresholds_for_precision(ids, probabilities, accepted, wanted).overall
    if math.isfinite(kept):
        precision, recall = _figures(probabilities, accepted, kept)
        note = (
            f"At least {_percent(wanted)} of the photos above are right, with "
            f"{_percent(CONFIDENCE)} confidence, as far as the {len(accepted)} decided ones stand "
            "for them."
        )
        return FittedThreshold(kept, "precision", precision, recall, len(accepted), note)
    cut = _best_f1(probabilities, accepted)
    precision, recall = _figures(probabilities, accepted, cut)
    least = math.ceil(NormalDist().inv_cdf(CONFIDENCE) ** 2 * wanted / (1 - wanted))
    note = (
        f"{len(accepted)} decided photos do not show that {_percent(wanted)} are right above any "
        f"threshold (it takes {least} of {least}, or more with a miss among them). This is the "
        f"best cut between accepted and rejected: {_percent(precision)} of the decided ones above "
        f"are accepted, and {_percent(recall)} of the accepted are above."
    )
    return FittedThreshold(cut, "f1", precision, recall, len(accepted), note)


def _best_f1(probabilities: Float64, accepted: Bool) -> float:
    """Return the probability to cut at for the best F1; of equals the highest."""
    order = np.argsort(-probabilities, kind="stable")
    probability, right = probabilities[order], accepted[order]
    hits = np.cumsum(right)
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + right.sum())
    # Equal probabilities are accepted together: only the last of them is a place to cut.
    f1[:-1][probability[:-1] == probability[1:]] = 0
    return float(probability[np.argmax(f1)])


def _figures(probabilities: Float64, accepted: Bool, threshold: float) -> tuple[float, float]:
    above = probabilities >= threshold
    hits = int((accepted & above).sum())
    return hits / int(above.sum()), hits / int(accepted.sum())


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
