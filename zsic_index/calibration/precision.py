"""Thresholds that keep a given precision, per label where the data allow it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from zsic_index.calibration.id_lookup import look_up
from zsic_index.embedding_arrays import Bool, Float64, Int64
from zsic_index.errors import InputError

CONFIDENCE = 0.95

NEVER = float("inf")
"""Threshold of a label that is never accepted."""


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionThresholds:
    """Probabilities from which predictions are accepted.

    Attributes:
        precision: the precision to keep.
        confidence: confidence of the bound on the precision, from 0.5 to 1.
        overall: threshold of labels without their own; NEVER if none keeps the precision.
        label_ids: (K,) int64 labels with their own threshold, ascending.
        thresholds: (K,) float64; NEVER for a label shown to fall short of the precision.
        answers: number of predictions that the thresholds were fitted on.
    """

    precision: float
    confidence: float
    overall: float
    label_ids: Int64
    thresholds: Float64
    answers: int

    def of(self, label_ids: Int64) -> Float64:
        """Return the threshold of each label id, in the shape given."""
        return look_up(self.label_ids, self.thresholds, label_ids, self.overall)


def fit_thresholds(
    label_ids: Int64,
    probabilities: Float64,
    correct: Bool,
    precision: float,
    *,
    confidence: float = CONFIDENCE,
) -> PrecisionThresholds:
    """Find the lowest thresholds at which predictions are correct often enough.

    A label's precision at a threshold is the fraction of correct ones among its predictions that
    are at least as probable. A threshold qualifies only if the lower end of the Wilson interval for
    that fraction (one-sided, at ``confidence``) reaches ``precision``, so a few predictions are not
    enough: for 90 %, 25 of 25 must be correct. The lowest qualifying threshold is used; the bound
    is not corrected for that choice.

    A label without a qualifying threshold gets the overall one, fitted to the predictions of all
    labels, unless its own predictions above that one contradict it (the upper end of the interval
    is below ``precision``): then it is never accepted.

    Args:
        label_ids: (M,) int64 label of each prediction, from labelled images that nothing else was
            fitted on: the best prediction of each image under softmax, the best few under sigmoid.
        probabilities: (M,) in [0, 1], calibrated if the thresholds are for calibrated ones.
        correct: (M,) True for predictions that are correct.
        precision: precision to keep, above 0 and below 1.
        confidence: from 0.5 (the fraction itself, without a margin) to below 1.

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
    one_group = np.zeros_like(label_ids)
    _, of_all = _lowest_thresholds(one_group, probabilities, correct, precision, z)
    overall = float(of_all[0]) if len(of_all) else NEVER
    ids, own = _lowest_thresholds(label_ids, probabilities, correct, precision, z)
    above = probabilities >= overall
    at = np.searchsorted(ids, label_ids[above])
    number = np.bincount(at, minlength=len(ids))
    right = np.bincount(at, weights=correct[above], minlength=len(ids))
    contradicted = (number > 0) & (wilson_bound(right, np.maximum(number, 1), -z) < precision)
    has_own = np.isfinite(own) | contradicted
    return PrecisionThresholds(
        precision, confidence, overall, ids[has_own], own[has_own], len(label_ids)
    )


def _lowest_thresholds(
    groups: Int64, probabilities: Float64, correct: Bool, precision: float, z: float
) -> tuple[Int64, Float64]:
    """Return the distinct groups, ascending, and the lowest threshold of each (NEVER if none)."""
    order = np.lexsort((-probabilities, groups))
    group, probability, right = groups[order], probabilities[order], correct[order]
    distinct, first, size = np.unique(group, return_index=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(right)])
    number = np.arange(1, len(group) + 1) - np.repeat(first, size)
    hits = before[1:] - np.repeat(before[first], size)
    # Equal probabilities are accepted together, so only the last of them can be a threshold.
    last = np.ones(len(group), dtype=np.bool_)
    last[:-1] = (group[1:] != group[:-1]) | (probability[1:] != probability[:-1])
    good = last & (wilson_bound(hits, number, z) >= precision)
    lowest = np.full(len(distinct), NEVER)
    np.minimum.at(lowest, np.searchsorted(distinct, group[good]), probability[good])
    return distinct, lowest


def wilson_bound(hits: Float64 | Int64, number: Int64, z: float) -> Float64:
    """Return the lower end of the Wilson interval for a fraction, or for z < 0 the upper end.

    Args:
        hits: number of hits, of any shape.
        number: number of trials, at least 1, of a shape that broadcasts.
        z: standard normal quantile: 1.96 for the lower end of a two-sided 95 % interval.
    """
    fraction = hits / number
    spread = np.sqrt(fraction * (1 - fraction) / number + (z / (2 * number)) ** 2)
    return np.asarray((fraction + z**2 / (2 * number) - z * spread) / (1 + z**2 / number))
