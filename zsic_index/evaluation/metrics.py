"""How good answers are: accuracies, average precision, F1, confusions. Arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Bool, Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.scan.pooling import Pooling

NO_NODE = -1
"""Stands for a rank at which a label, or a prediction, has no node."""

RESAMPLES = 10_000

BLOCK_ELEMENTS = 1 << 22
"""Similarities that are held at a time for average precision: 16 MiB of float32."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over images, with an interval for what other images of that kind would give.

    Attributes:
        value: the mean, in [0, 1].
        low: the interval's lower end.
        high: the interval's upper end.
        images: over how many.
    """

    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True, slots=True)
class F1:
    """F1 of sets of labels, 2 hits / (2 hits + false + missed).

    Attributes:
        micro: of all pairs of image and label together.
        macro: the mean over labels that are right for at least one image. What is wrongly said of
            other labels counts in ``micro`` only.
        labels: over how many labels ``macro`` goes.
    """

    micro: float
    macro: float
    labels: int


def hits_within(rows: Int64, truth: Truth, k: int) -> Bool:
    """Tell for each image whether one of its first k rows is right.

    Args:
        rows: (B, K) predicted rows, best first, K at least k or all there are.
        truth: right labels of the B images.
        k: at least 1.

    Returns:
        (B,) bool.
    """
    if k < 1:
        raise InputError(f"k is {k}; it must be at least 1")
    if len(rows) != truth.images:
        raise InputError(f"{len(rows)} predictions for {truth.images} images: give one for each")
    return np.asarray(truth.contains(rows[:, :k]).any(axis=1))


def accuracy(correct: Bool, *, seed: int = 0) -> Figure:
    """Return how often answers are right, with a 95 % bootstrap interval over the images.

    Drawing B images with replacement gives a binomial number of right ones, so that is what is
    drawn. Where all images agree, every draw would be the same; the exact one-sided bound stands in
    its place.

    Args:
        correct: (B,) whether each image's answer is right; B at least 1.
        seed: of the draws.
    """
    number = len(correct)
    if not number:
        raise InputError("no images to measure: give at least one")
    value = float(np.mean(correct))
    if value in (0.0, 1.0):
        bound = 0.05 ** (1 / number)
        return Figure(value, value and bound, value or 1 - bound, number)
    drawn = np.random.default_rng(seed).binomial(number, value, RESAMPLES) / number
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Figure(value, float(low), float(high), number)


def accuracy_by_rank(predicted: Int64, true: Int64, *, seed: int = 0) -> list[Figure | None]:
    """Return the accuracy at each of R ranks.

    Args:
        predicted: (B, R) predicted node of each rank, NO_NODE where there is none.
        true: (B, R) right node of each rank, NO_NODE for images that do not count at that rank.
        seed: of the interval's draws.

    Returns:
        R figures; None for a rank at which no image counts.
    """
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise InputError(f"nodes have shapes {predicted.shape} and {true.shape}; give (B, R) twice")
    found = []
    for at_rank, right in zip(predicted.T, true.T, strict=True):
        counts = right != NO_NODE
        found.append(accuracy((at_rank == right)[counts], seed=seed) if counts.any() else None)
    return found


def average_precision(scores: Float64 | Float32, relevant: Bool) -> Float64:
    """Return the average precision of each of n labels over B images.

    It is the sum over distinct scores, highest first, of the precision at that score times the
    recall that it adds; images of equal score are taken together, so their order does not matter.

    Args:
        scores: (B, n) higher for images that fit better.
        relevant: (B, n) which images the label is right for.

    Returns:
        (n,) float64; NaN for a label that is right for none.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    right = np.take_along_axis(relevant, order, axis=0)
    images = len(scores)
    places = np.arange(images)[:, None]
    last = np.ones(scores.shape, dtype=np.bool_)
    last[:-1] = ranked[1:] != ranked[:-1]
    # Each place looks to the end of its run of equal scores.
    ends = np.where(last, places, images)
    ends = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
    precision = np.take_along_axis(np.cumsum(right, axis=0), ends, axis=0) / (ends + 1)
    with np.errstate(invalid="ignore"):
        return np.asarray((precision * right).sum(axis=0) / right.sum(axis=0))


def mean_average_precision(
    matrix: Float32,
    embeddings: Float32,
    truth: Truth,
    *,
    logit_scale: float = 1.0,
    log_partition: Float64 | None = None,
    pooling: Pooling | None = None,
) -> float:
    """Return the mean over labels of their average precision; only labels with a right image count.

    A label's bias is the same for all images, and changes none of this.

    Args:
        matrix: (N, D) float32 label embeddings; may be memory-mapped.
        embeddings: (B, D) float32 image embeddings.
        truth: right labels of the B images; at least one.
        logit_scale: the multiplier of similarities, > 0; only matters with ``log_partition``.
        log_partition: (B,) of each image, for images in the order of their softmax probabilities;
            None for that of similarities, which is the sigmoid's.
        pooling: which rows of ``matrix`` are one label; None where each is.
    """
    labels = np.unique(truth.label)
    if not len(labels):
        raise InputError("no image has a right label: give at least one")
    by_label = np.argsort(truth.label, kind="stable")
    at_label, of_image = truth.label[by_label], truth.image[by_label]
    shift = np.zeros(len(embeddings)) if log_partition is None else log_partition
    step = max(1, BLOCK_ELEMENTS // len(embeddings))
    total = 0.0
    for start in range(0, len(labels), step):
        some = labels[start : start + step]
        rows = some if pooling is None else pooling.rows_of(some)
        scores = (embeddings @ matrix[rows].T).astype(np.float64) * logit_scale
        if pooling is not None:
            scores = pooling.take(some).pool(scores)
        scores = scores - shift[:, None]
        first, end = np.searchsorted(at_label, (some[0], some[-1] + 1))
        relevant = np.zeros(scores.shape, dtype=np.bool_)
        relevant[of_image[first:end], np.searchsorted(some, at_label[first:end])] = True
        total += float(average_precision(scores, relevant).sum())
    return total / len(labels)


def f1(rows: Int64, chosen: Bool, truth: Truth) -> F1:
    """Return F1 of the labels that are chosen for each image.

    Args:
        rows: (B, k) distinct rows of labels.
        chosen: (B, k) whether each is chosen: at least as probable as its threshold.
        truth: right labels of the B images; at least one.
    """
    if not len(truth.label):
        raise InputError("no image has a right label: give at least one")
    hit = chosen & truth.contains(rows)
    labels, right = np.unique(truth.label, return_counts=True)
    said = _count_of(labels, rows[chosen])
    hits = _count_of(labels, rows[hit])
    # 2 hits + false + missed = what is said + what is right.
    macro = float((2 * hits / (said + right)).mean())
    micro = 2 * float(hit.sum()) / (float(chosen.sum()) + len(truth.label))
    return F1(micro, macro, len(labels))


def confusions(true: Int64, predicted: Int64, most: int) -> list[tuple[int, int, int]]:
    """Return the pairs that are most often confused: (true, predicted, images).

    Only pairs that occur are ever held.

    Args:
        true: (B,) right row.
        predicted: (B,) row of the most probable label.
        most: how many pairs at most.

    Returns:
        Most frequent first; pairs of equal number in the order of their rows.
    """
    wrong = true != predicted
    pairs, number = np.unique(
        np.stack([true[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-number, kind="stable")[:most]
    return [
        (one, other, count)
        for (one, other), count in zip(pairs[order].tolist(), number[order].tolist(), strict=True)
    ]


def _count_of(labels: Int64, rows: Int64) -> Int64:
    """Return how often each of the ascending labels is among the rows; others are left out."""
    at = np.minimum(np.searchsorted(labels, rows), len(labels) - 1)
    return np.bincount(at[labels[at] == rows], minlength=len(labels))
