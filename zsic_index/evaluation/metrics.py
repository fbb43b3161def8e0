"""Metrics of predictions: accuracies, average precision, F1, confusions; arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Bool, Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.scan.pooling import Pooling

NO_NODE = -1
"""Node of a label or a prediction at a rank where it has none."""

RESAMPLES = 10_000
"""Bootstrap samples of an interval."""

BLOCK_ELEMENTS = 1 << 22
"""Similarities held at a time for average precision: 16 MiB of float32."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over images, with its 95 % bootstrap interval.

    Attributes:
        value: the mean, in [0, 1].
        low: lower end of the interval.
        high: upper end of the interval.
        images: number of images.
    """

    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True, slots=True)
class F1:
    """F1 of predicted sets of labels, 2 hits / (2 hits + false + missed).

    Attributes:
        micro: F1 over all (image, label) pairs together.
        macro: mean over labels that are correct for at least one image. Wrong predictions of other
            labels count in ``micro`` only.
        labels: number of labels that ``macro`` is the mean over.
    """

    micro: float
    macro: float
    labels: int


def hits_within(rows: Int64, truth: Truth, k: int) -> Bool:
    """Tell for each image whether one of its first k rows is a correct label.

    Args:
        rows: (B, K) predicted rows, best first; K is at least k, or all labels.
        truth: correct labels of the B images.
        k: number of predictions considered, at least 1.

    Returns:
        (B,) bool.
    """
    if k < 1:
        raise InputError(f"k is {k}; it must be at least 1")
    if len(rows) != truth.images:
        raise InputError(f"{len(rows)} predictions for {truth.images} images: give one for each")
    return np.asarray(truth.contains(rows[:, :k]).any(axis=1))


def accuracy(correct: Bool, *, seed: int = 0) -> Figure:
    """Return the fraction of correct answers, with a 95 % bootstrap interval over the images.

    Resampling B images with replacement gives a binomial number of correct ones, so that number is
    drawn directly. If all images agree, every sample would be the same, and the interval is the
    exact one-sided bound instead.

    Args:
        correct: (B,) True for images with a correct answer; B at least 1.
        seed: seed of the samples.
    """
    number = len(correct)
    if not number:
        raise InputError("no images to measure: give at least one")
    value = float(np.mean(correct))
    if value in (0.0, 1.0):
        bound = 0.05 ** (1 / number)
        return Figure(value, value and bound, value or 1 - bound, number)
    samples = np.random.default_rng(seed).binomial(number, value, RESAMPLES) / number
    low, high = np.quantile(samples, (0.025, 0.975))
    return Figure(value, float(low), float(high), number)


def accuracy_by_rank(predicted: Int64, true: Int64, *, seed: int = 0) -> list[Figure | None]:
    """Return the accuracy at each of R ranks.

    Args:
        predicted: (B, R) predicted node at each rank, NO_NODE if there is none.
        true: (B, R) correct node at each rank, NO_NODE to leave an image out at that rank.
        seed: seed of the bootstrap samples.

    Returns:
        R figures; None for a rank without images.
    """
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise InputError(f"nodes have shapes {predicted.shape} and {true.shape}; give (B, R) twice")
    figures = []
    for predicted_nodes, true_nodes in zip(predicted.T, true.T, strict=True):
        counts = true_nodes != NO_NODE
        correct = (predicted_nodes == true_nodes)[counts]
        figures.append(accuracy(correct, seed=seed) if counts.any() else None)
    return figures


def average_precision(scores: Float64 | Float32, relevant: Bool) -> Float64:
    """Return the average precision of each of n labels over B images.

    It is the sum over distinct scores, highest first, of the precision at that score times the
    recall that it adds. Images of equal score are taken together, so their order does not matter.

    Args:
        scores: (B, n) scores, higher for images that fit better.
        relevant: (B, n) True where the label is correct for the image.

    Returns:
        (n,) float64; NaN for a label that is correct for no image.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    correct = np.take_along_axis(relevant, order, axis=0)
    images = len(scores)
    places = np.arange(images)[:, None]
    last = np.ones(scores.shape, dtype=np.bool_)
    last[:-1] = ranked[1:] != ranked[:-1]
    # Each place takes the precision at the end of its run of equal scores.
    ends = np.where(last, places, images)
    ends = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
    precision = np.take_along_axis(np.cumsum(correct, axis=0), ends, axis=0) / (ends + 1)
    with np.errstate(invalid="ignore"):
        return np.asarray((precision * correct).sum(axis=0) / correct.sum(axis=0))


def mean_average_precision(
    matrix: Float32,
    embeddings: Float32,
    truth: Truth,
    *,
    logit_scale: float = 1.0,
    log_partition: Float64 | None = None,
    pooling: Pooling | None = None,
) -> float:
    """Return the mean average precision over the labels that are correct for at least one image.

    A label bias is the same for all images and does not change it.

    Args:
        matrix: (N, D) float32 label embeddings; may be memory-mapped.
        embeddings: (B, D) float32 image embeddings.
        truth: correct labels of the B images; at least one.
        logit_scale: multiplier of similarities, > 0; only matters with ``log_partition``.
        log_partition: (B,) of each image, to rank images by softmax probability; None to rank them
            by similarity, as under sigmoid.
        pooling: groups of rows that form one label; None if each row is a label.
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
        block = labels[start : start + step]
        rows = block if pooling is None else pooling.rows_of(block)
        scores = (embeddings @ matrix[rows].T).astype(np.float64) * logit_scale
        if pooling is not None:
            scores = pooling.take(block).pool(scores)
        scores = scores - shift[:, None]
        first, end = np.searchsorted(at_label, (block[0], block[-1] + 1))
        relevant = np.zeros(scores.shape, dtype=np.bool_)
        relevant[of_image[first:end], np.searchsorted(block, at_label[first:end])] = True
        total += float(average_precision(scores, relevant).sum())
    return total / len(labels)


def f1(rows: Int64, accepted: Bool, truth: Truth) -> F1:
    """Return F1 of the labels that are accepted for each image.

    Args:
        rows: (B, k) distinct rows of labels.
        accepted: (B, k) True for labels that reach their threshold.
        truth: correct labels of the B images; at least one.
    """
    if not len(truth.label):
        raise InputError("no image has a right label: give at least one")
    hit = accepted & truth.contains(rows)
    labels, correct_counts = np.unique(truth.label, return_counts=True)
    accepted_counts = _count_of(labels, rows[accepted])
    hit_counts = _count_of(labels, rows[hit])
    # 2 hits + false + missed = accepted + correct.
    macro = float((2 * hit_counts / (accepted_counts + correct_counts)).mean())
    micro = 2 * float(hit.sum()) / (float(accepted.sum()) + len(truth.label))
    return F1(micro, macro, len(labels))


def confusions(true: Int64, predicted: Int64, most: int) -> list[tuple[int, int, int]]:
    """Return the most frequent confusions as (true row, predicted row, number of images).

    Memory is proportional to the number of pairs that occur.

    Args:
        true: (B,) correct row.
        predicted: (B,) row of the most probable label.
        most: maximum number of pairs.

    Returns:
        Most frequent first; equally frequent pairs in the order of their rows.
    """
    wrong = true != predicted
    pairs, counts = np.unique(
        np.stack([true[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        (true_row, predicted_row, count)
        for (true_row, predicted_row), count in zip(
            pairs[order].tolist(), counts[order].tolist(), strict=True
        )
    ]


def _count_of(labels: Int64, rows: Int64) -> Int64:
    """Return how often each label occurs in rows; ``labels`` ascend, other rows are ignored."""
    at = np.minimum(np.searchsorted(labels, rows), len(labels) - 1)
    return np.bincount(at[labels[at] == rows], minlength=len(labels))
