"""Thresholds that keep a wanted precision, per label where the data allow it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from zsic_index.calibration.by_id import by_id
from zsic_index.embedding_arrays import Bool, Float64, Int64
from zsic_index.errors import InputError

CONFIDENCE = 0.95

NEVER = float("inf")
"""The threshold of a label that is never accepted."""


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionThresholds:
    """Probabilities from which on an answer is accepted.

    Attributes:
        precision: the wanted precision.
        confidence: how sure it had to be, from 0.5 to 1.
        overall: for labels without a threshold of their own; NEVER where none keeps the precision.
        label_ids: (K,) int64 labels with one of their own, ascending.
        thresholds: (K,) float64; NEVER for a label that the data show to fall short.
        answers: how many answers they were fitted on.
    """

    precision: float
    confidence: float
    overall: float
    label_ids: Int64
    thresholds: Float64
    answers: int

    def of(self, label_ids: Int64) -> Float64:
        """Return the threshold of each label id, in the shape given."""
        return by_id(self.label_ids, self.thresholds, label_ids, self.overall)


def thresholds_for_precision(
    label_ids: Int64,
    probabilities: Float64,
    correct: Bool,
    precision: float,
    *,
    confidence: float = CONFIDENCE,
) -> PrecisionThresholds:
    """Find the lowest thresholds above which answers are right often enough.

    A label's precision at a threshold is the fraction of right ones among its answers that are at
    least as probable. A threshold is taken only where the lower end of the Wilson interval for that
    fraction (one-sided, at ``confidence``) reaches the wanted precision, so that few answers are
    not enough: for 90 %, 25 of 25 have to be right. Of several such thresholds the lowest is taken,
    and the bound is not corrected for that choice.

    A label without such a threshold gets the overall one, from all labels' answers together; unless
    its own answers above that contradict it (the upper end of the interval is below the wanted
    precision): then it is never accepted.

    Args:
        label_ids: (M,) int64 label of each answer, from labelled images that nothing else was
            fitted on; the first answer of each image under softmax, the first several under
            sigmoid.
        probabilities: (M,) in [0, 1], calibrated if they are used so.
        correct: (M,) whether each answer is right.
        precision: the wanted one, above 0 and below 1.
        confidence: from 0.5 (which asks for no certainty) to below 1.

    Raises:
        InputError: for shapes that differ, or numbers out of range.
    """
    label_ids = np.asarray(label_ids, dtype=np.int64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    correct = np.asarray(correct, dtype=np.bool_)
    if not (label_ids.shape == probabilities.shape == correct.shape and label_ids.ndim == 1):
        raise InputError(
            f"label ids {label_ids.shape}, probabilities {probabilities.shape} and correct "
            f"{correct.shape} must all have one shape (M,)"
        )
    if not 0 < precision < 1:
        raise InputError(f"precision is {precision}; it must be above 0 and below 1")
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence is {confidence}; it must be from 0.5 to below 1")
    z = NormalDist().inv_cdf(confidence)
    _, alone = _lowest(np.zeros_like(label_ids), probabilities, correct, precision, z)
    overall = float(alone[0]) if len(alone) else NEVER
    ids, own = _lowest(label_ids, probabilities, correct, precision, z)
    above = probabilities >= overall
    at = np.searchsorted(ids, label_ids[above])
    number = np.bincount(at, minlength=len(ids))
    right = np.bincount(at, weights=correct[above], minlength=len(ids))
    contradicted = (number > 0) & (_wilson(right, np.maximum(number, 1), -z) < precision)
    settled = np.isfinite(own) | contradicted
    return PrecisionThresholds(
        precision, confidence, overall, ids[settled], own[settled], len(label_ids)
    )


def _lowest(
    groups: Int64, probabilities: Float64, correct: Bool, precision: float, z: float
) -> tuple[Int64, Float64]:
    """Return the distinct groups, ascending, and the lowest threshold of each, NEVER for none."""
    order = np.lexsort((-probabilities, groups))
    group, probability, right = groups[order], probabilities[order], correct[order]
    distinct, first, size = np.unique(group, return_index=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(right)])
    number = np.arange(1, len(group) + 1) - np.repeat(first, size)
    hits = before[1:] - np.repeat(before[first], size)
    # Equal probabilities are accepted together: only the last of them is a place to cut.
    last = np.ones(len(group), dtype=np.bool_)
    last[:-1] = (group[1:] != group[:-1]) | (probability[1:] != probability[:-1])
    good = last & (_wilson(hits, number, z) >= precision)
    lowest = np.full(len(distinct), NEVER)
    np.minimum.at(lowest, np.searchsorted(distinct, group[good]), probability[good])
    return distinct, lowest


def _wilson(hits: Float64 | Int64, number: Int64, z: float) -> Float64:
    """Return the lower end of Wilson's interval for a fraction, or for z < 0 the upper one."""
    fraction = hits / number
    spread = np.sqrt(fraction * (1 - fraction) / number + (z / (2 * number)) ** 2)
    return np.asarray((fraction + z**2 / (2 * number) - z * spread) / (1 + z**2 / number))
