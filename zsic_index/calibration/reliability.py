"""Reliability diagrams and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from zsic_index.embedding_arrays import Bool, Float64
from zsic_index.errors import InputError

BINS = 15

Binning = Literal["equal-width", "equal-mass"]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions whose probability lies between two bounds.

    Attributes:
        low: lower bound, included.
        high: upper bound, excluded except in the last bin.
        answers: number of predictions, at least 1.
        probability: their mean probability.
        accuracy: fraction of them that is correct.
    """

    low: float
    high: float
    answers: int
    probability: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram.

    Attributes:
        bins: bins that are not empty, in ascending order.
        answers: number of predictions in all bins.
        error: expected calibration error: the mean over predictions of the difference between
            accuracy and probability of their bin (Naeini et al. 2015; Guo et al. 2017,
            arXiv 1706.04599).
    """

    bins: tuple[ReliabilityBin, ...]
    answers: int
    error: float


def reliability(
    probabilities: Float64, correct: Bool, *, bins: int = BINS, binning: Binning = "equal-width"
) -> Reliability:
    """Compare the probabilities of predictions with the fraction that is correct.

    Args:
        probabilities: (M,) in [0, 1].
        correct: (M,) True for predictions that are correct.
        bins: maximum number of bins.
        binning: ``equal-width`` cuts [0, 1] into equal parts; ``equal-mass`` cuts at quantiles, so
            that all bins hold about the same number of predictions. Equal probabilities are never
            separated, so the order of the predictions does not matter.

    Raises:
        InputError: for shapes that differ, no answers, or a probability outside [0, 1].
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    correct = np.asarray(correct, dtype=np.bool_)
    if probabilities.ndim != 1 or probabilities.shape != correct.shape:
        raise InputError(
            f"probabilities have shape {probabilities.shape}, correct {correct.shape}; give (M,)"
        )
    if not len(probabilities):
        raise InputError("no answers to measure: give at least one")
    outside = probabilities[~((probabilities >= 0) & (probabilities <= 1))]
    if len(outside):
        raise InputError(f"probability {outside[0]} is not in [0, 1]")
    if bins < 1:
        raise InputError(f"bins is {bins}; it must be at least 1")
    edges = np.linspace(0, 1, bins + 1)
    if binning == "equal-mass":
        edges = np.unique(np.quantile(probabilities, edges))
    inner = edges[1:-1]
    at = np.searchsorted(inner, probabilities, side="right")
    size = len(inner) + 1
    answers = np.bincount(at, minlength=size)
    mass = np.bincount(at, weights=probabilities, minlength=size)
    right = np.bincount(at, weights=correct, minlength=size)
    filled = tuple(
        ReliabilityBin(
            float(edges[index]),
            float(edges[min(index + 1, len(edges) - 1)]),
            int(answers[index]),
            float(mass[index] / answers[index]),
            float(right[index] / answers[index]),
        )
        for index in np.flatnonzero(answers).tolist()
    )
    error = float(np.abs(mass - right).sum() / len(probabilities))
    return Reliability(filled, len(probabilities), error)
