"""Fit the logit scale of a softmax.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599) of a model that already has a temperature:
it corrects ``logit_scale``. A scale fitted for a checkpoint also suits other prompts and label sets
(LeVine et al. 2023, arXiv 2303.12748).

The mean negative log-likelihood is convex in the scale. One pass over all similarities computes its
value, slope and curvature at several scales; the zero of the slope is interpolated between the two
scales that enclose it. Three passes are usual. Each worker holds one block of similarities, and a
few numbers per image.

With names pooled by ``mass``, the scale is inside each label's sum over its names. The likelihood
is then a difference of convex functions and may have several minima: the result is the lowest of
those that the passes enclose.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic_index.calibration.passes import (
    IMAGE_BATCH,
    check_arrays,
    map_slices,
    pair_similarities,
    row_blocks,
    similarity_blocks,
)
from zsic_index.calibration.reliability import reliability
from zsic_index.calibration.truth import check_rows
from zsic_index.embedding_arrays import Bool, Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.scan.pooling import Pooling

MAX_CHANGE = 64.0
"""The search covers the model's own scale divided by this to the same multiplied by this."""

_FIRST = tuple(4.0**power for power in (0, -3, -2, -1, 1, 2, 3))
"""Factors on the model's scale in the first pass; 1 must be first."""

_SPREAD = np.array([-0.05, 0.0, 0.05])
"""Points of later passes relative to the expected zero, in widths of the enclosing interval."""

_TOLERANCE = 1e-4
"""Relative tolerance of the scale, far below its statistical error."""

_MAX_PASSES = 12


@dataclass(frozen=True, slots=True)
class ScaleFit:
    """A fitted logit scale and bias, with likelihood and calibration error before and after.

    Attributes:
        scale_before: the model's logit scale.
        scale: the fitted logit scale.
        bias_before: the model's logit bias; 0.0 under softmax.
        bias: the fitted logit bias; 0.0 under softmax.
        nll_before: mean negative log-likelihood per image, in nats; under sigmoid summed over all
            labels of an image.
        nll: ``nll_before`` after the fit.
        ece_before: expected calibration error of each image's most probable label under softmax, of
            its five most probable ones under sigmoid: a sigmoid scores each label by itself, and
            underestimates the label that ranks first among all.
        ece: ``ece_before`` after the fit.
        images: number of images that it was fitted on.
    """

    scale_before: float
    scale: float
    bias_before: float
    bias: float
    nll_before: float
    nll: float
    ece_before: float
    ece: float
    images: int


def fit_temperature(
    matrix: Float32,
    embeddings: Float32,
    targets: npt.ArrayLike,
    *,
    logit_scale: float,
    label_bias: Float32 | None = None,
    pooling: Pooling | None = None,
    threads: int | None = None,
) -> ScaleFit:
    """Find the logit scale that maximises the likelihood of the correct labels under softmax.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings, or with ``pooling`` a row for each name;
            may be memory-mapped.
        embeddings: (B, D) float32 unit-norm image embeddings.
        targets: (B,) correct label of each image, 0 to N - 1.
        logit_scale: the model's own, > 0.
        label_bias: (N,) float32 bias that is subtracted from the similarities, if any.
        pooling: groups of rows that form one label; None if each row is a label.
        threads: number of workers; by default one per available core.

    Raises:
        EmbeddingError: for shapes that do not fit.
        InputError: for a target out of range, or when no scale is best: with all images correct by
            a wide margin the best is infinite, with labels that do not fit the images it is 0.
    """
    check_arrays(matrix, embeddings, label_bias, pooling)
    labels = len(matrix) if pooling is None else pooling.labels
    rows = check_rows(targets, labels, "label")
    if len(rows) != len(embeddings):
        raise InputError(f"{len(embeddings)} images but {len(rows)} right labels: give one each")
    if not (np.isfinite(logit_scale) and logit_scale > 0):
        raise InputError(f"logit_scale is {logit_scale}; it must be finite and above 0")
    label_matrix = _LabelMatrix(matrix, label_bias, pooling)

    def losses_at(scales: Float64) -> _SoftmaxLosses:
        def batch_losses(part: slice) -> _SoftmaxLosses:
            return _batch_losses(label_matrix, embeddings[part], rows[part], scales)

        return _concatenated(map_slices(batch_losses, len(rows), IMAGE_BATCH, threads))

    losses = losses_at(logit_scale * np.array(_FIRST))
    before, curve = losses.point(0), losses.points()
    _check_enclosed(curve, logit_scale)
    for _ in range(_MAX_PASSES):
        low, high, zero = _enclose_zero(curve)
        best = min(curve, key=lambda point: abs(np.log(point.scale) - zero))
        if abs(np.log(best.scale) - zero) <= _TOLERANCE:
            break
        width = np.log(high.scale / low.scale)
        log_scales = np.clip(zero + _SPREAD * width, np.log(low.scale), np.log(high.scale))
        curve += losses_at(np.exp(log_scales)).points()
    return ScaleFit(
        scale_before=before.scale,
        scale=best.scale,
        bias_before=0.0,
        bias=0.0,
        nll_before=before.nll,
        nll=best.nll,
        ece_before=reliability(before.confidence, before.correct).error,
        ece=reliability(best.confidence, best.correct).error,
        images=len(rows),
    )


@dataclass(frozen=True, slots=True)
class _LossPoint:
    """Mean negative log-likelihood at one scale.

    Attributes:
        scale: the logit scale.
        nll: the loss.
        slope: its first derivative in the scale.
        bend: its second derivative.
        confidence: (B,) probability of each image's most probable label.
        correct: (B,) True where that label is correct.
    """

    scale: float
    nll: float
    slope: float
    bend: float
    confidence: Float64
    correct: Bool


@dataclass(frozen=True, slots=True)
class _SoftmaxLosses:
    """Negative log-likelihood of each image at S scales; the other arrays are (S, B).

    Attributes:
        scales: (S,) logit scales.
        nll: the loss.
        slope: its first derivative in the scale.
        bend: its second derivative.
        confidence: probability of the most probable label.
        correct: True where that label is correct.
    """

    scales: Float64
    nll: Float64
    slope: Float64
    bend: Float64
    confidence: Float64
    correct: Bool

    def point(self, number: int) -> _LossPoint:
        return _LossPoint(
            float(self.scales[number]),
            float(self.nll[number].mean()),
            float(self.slope[number].mean()),
            float(self.bend[number].mean()),
            self.confidence[number],
            self.correct[number],
        )

    def points(self) -> list[_LossPoint]:
        return [self.point(number) for number in range(len(self.scales))]


@dataclass(frozen=True, slots=True, eq=False)
class _LabelMatrix:
    """Label embeddings with bias and pooling; see ``fit_temperature``."""

    matrix: Float32
    bias: Float32 | None
    pooling: Pooling | None

    @property
    def by_mass(self) -> Pooling | None:
        """The pooling if it is by ``mass``, else None."""
        return self.pooling if self.pooling and self.pooling.how == "mass" else None

    def blocks(self, queries: Float32) -> Iterator[tuple[int, int, Float32]]:
        """Yield first label, end (excluded) and (B, n) similarities: of names if ``by_mass``."""
        if (pooling := self.by_mass) is None:
            for first, block in similarity_blocks(self.matrix, queries, self.bias, self.pooling):
                yield first, first + block.shape[1], block
            return
        for first, end, block in row_blocks(self.matrix, queries, pooling):
            if self.bias is not None:
                block -= np.repeat(self.bias[first:end], pooling.counts[first:end])
            yield first, end, block

    def of_targets(self, queries: Float32, rows: Int64) -> tuple[Float64, Int64]:
        """Return similarities to the correct labels, image after image, and (B,) their number.

        There is one per image, or under ``mass`` one for each name of the correct label.
        """
        images = np.arange(len(rows))
        if (pooling := self.by_mass) is None:
            similarities = pair_similarities(
                self.matrix,
                queries,
                images,
                rows,
                label_bias=self.bias,
                pooling=self.pooling,
            )
            return similarities, np.ones_like(images)
        counts = pooling.counts[rows]
        names, of_row = pooling.rows_of(rows), np.repeat(images, counts)
        similarities = pair_similarities(self.matrix, queries, of_row, names)
        if self.bias is not None:
            similarities -= np.repeat(self.bias[rows], counts)
        return similarities, counts


def _batch_losses(
    labels: _LabelMatrix, queries: Float32, rows: Int64, scales: Float64
) -> _SoftmaxLosses:
    """Compute the losses of one batch of images in one pass over all labels.

    With d the similarity to a label less that to the correct one, the negative log-likelihood is
    log(sum(exp(scale * d))), and its derivatives are mean and variance of d under the softmax.
    Under ``mass``, d is the similarity to a name less that to the correct label's nearest name; the
    same three terms over the names of the correct label alone are then subtracted.
    """
    batch = len(queries)
    own, counts = labels.of_targets(queries, rows)
    starts = np.cumsum(counts) - counts
    nearest = np.maximum.reduceat(own, starts)
    target = nearest.astype(np.float32)
    peak = np.full(batch, -np.inf, dtype=np.float32)
    best = np.zeros((len(scales), batch), dtype=np.int64)
    # The best label's share of the sum; unless pooled by mass, that of the peak, exp(0).
    share = np.ones((len(scales), batch))
    sums = np.zeros((3, len(scales), batch))
    images = np.arange(batch)
    if labels.by_mass:
        share[:] = 0
    for first, end, distance in labels.blocks(queries):
        distance -= target[:, None]
        at = distance.argmax(axis=1)
        top = distance[images, at]
        higher = np.maximum(peak, top)
        # Sums so far are relative to the old peak; make them relative to the new one.
        rescale = np.exp(scales[:, None] * (peak.astype(np.float64) - higher))
        sums *= rescale
        if labels.by_mass is None:
            best[:, top > peak] = at[top > peak] + first
        else:
            share *= rescale
            edges = labels.by_mass.starts[first:end] - labels.by_mass.starts[first]
        peak = higher
        below = distance - peak[:, None]
        weight = np.empty_like(below)
        for number, scale in enumerate(scales):
            np.exp(np.multiply(below, np.float32(scale), out=weight), out=weight)
            sums[0, number] += weight.sum(axis=1)
            if labels.by_mass is not None:
                masses = np.add.reduceat(weight, edges, axis=1)
                at = masses.argmax(axis=1)
                improved = masses[images, at] > share[number]
                best[number, improved] = at[improved] + first
                share[number, improved] = masses[images, at][improved]
            weight *= distance
            sums[1, number] += weight.sum(axis=1)
            sums[2, number] += np.vecdot(weight, distance)
    mean, second = sums[1] / sums[0], sums[2] / sums[0]
    log_sum = np.log(sums[0])
    own -= np.repeat(nearest, counts)
    terms = np.exp(scales[:, None] * own)
    own_sum, own_mean, own_second = (
        np.add.reduceat(terms * own**power, starts, axis=1) for power in (0, 1, 2)
    )
    own_mean /= own_sum
    own_second /= own_sum
    return _SoftmaxLosses(
        scales,
        log_sum + scales[:, None] * peak - np.log(own_sum),
        mean - own_mean,
        np.maximum(second - mean**2, 0) - np.maximum(own_second - own_mean**2, 0),
        np.minimum(share / sums[0], 1),
        best == rows,
    )


def _concatenated(batches: list[_SoftmaxLosses]) -> _SoftmaxLosses:
    return _SoftmaxLosses(
        batches[0].scales,
        np.concatenate([batch.nll for batch in batches], axis=1),
        np.concatenate([batch.slope for batch in batches], axis=1),
        np.concatenate([batch.bend for batch in batches], axis=1),
        np.concatenate([batch.confidence for batch in batches], axis=1),
        np.concatenate([batch.correct for batch in batches], axis=1),
    )


def _check_enclosed(curve: list[_LossPoint], logit_scale: float) -> None:
    """Raise an InputError unless the slope changes its sign along the curve."""
    smallest, *_, largest = sorted(curve, key=lambda point: point.scale)
    if largest.slope < 0:
        raise InputError(
            f"no logit_scale up to {MAX_CHANGE:g} times {logit_scale:g} is too large for these "
            f"{len(curve[0].confidence)} images, so they cannot tell the right one: "
            "give more of them, and harder ones"
        )
    if smallest.slope >= 0:
        raise InputError(
            f"no logit_scale down to {logit_scale:g} / {MAX_CHANGE:g} is small enough for these "
            f"{len(curve[0].confidence)} images: their labels do not fit them; check the labels"
        )


def _enclose_zero(curve: list[_LossPoint]) -> tuple[_LossPoint, _LossPoint, float]:
    """Return the nearest points on both sides of the slope's zero, and the log scale of the zero.

    That is interpolated: the zero of the cubic with the slope's values and derivatives at both
    points.
    """
    by_scale = sorted(curve, key=lambda point: point.scale)
    pairs = [pair for pair in itertools.pairwise(by_scale) if pair[0].slope < 0 <= pair[1].slope]
    low, high = min(pairs, key=lambda pair: min(pair[0].nll, pair[1].nll))
    start, width = np.log(low.scale), np.log(high.scale / low.scale)
    steep = (low.bend * low.scale * width, high.bend * high.scale * width)
    left, right = 0.0, 1.0
    for _ in range(60):
        t = (left + right) / 2
        value = (
            (1 + 2 * t) * (1 - t) ** 2 * low.slope
            + t * (1 - t) ** 2 * steep[0]
            + t**2 * (3 - 2 * t) * high.slope
            + t**2 * (t - 1) * steep[1]
        )
        left, right = (t, right) if value < 0 else (left, t)
    return low, high, float(start + left * width)
