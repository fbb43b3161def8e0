"""The one number that calibrates a softmax: the logit scale.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599), where the model has a temperature already:
a corrected ``logit_scale``. One per checkpoint carries over to other prompts and label sets (LeVine
et al. 2023, arXiv 2303.12748).

The mean negative log-likelihood is convex in the scale. Its value, slope and curvature are taken at
several scales in one pass over all similarities; the slope's zero is found by interpolation between
the two scales that enclose it. Three passes are usual. What is held is one block of similarities
per worker, and a few numbers per image.

Where names are pooled by their mass, the scale stands inside of each label's sum over its names.
The likelihood is then a difference of convex functions, which may have several minima: the lowest
of those that the passes enclose is taken.
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
    in_batches,
    pair_similarities,
    row_blocks,
    similarity_blocks,
)
from zsic_index.calibration.reliability import reliability
from zsic_index.calibration.truth import checked_rows
from zsic_index.embedding_arrays import Bool, Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.scan.pooling import Pooling

MAX_CHANGE = 64.0
"""The scale is looked for between the model's own divided and multiplied by this."""

_FIRST = tuple(4.0**power for power in (0, -3, -2, -1, 1, 2, 3))
"""Factors of the first pass; the model's own scale stands first."""

_SPREAD = np.array([-0.05, 0.0, 0.05])
"""Where later passes look, around the expected zero, in widths of what encloses it."""

_TOLERANCE = 1e-4
"""How near the scale must be, of itself; its statistical error is far larger."""

_MAX_PASSES = 12


@dataclass(frozen=True, slots=True)
class ScaleFit:
    """A fitted logit scale and bias, and what they did to the images that they were fitted on.

    Attributes:
        scale_before: the model's logit scale.
        scale: the fitted one.
        bias_before: the model's logit bias; 0.0 under softmax.
        bias: the fitted one; 0.0 under softmax.
        nll_before: mean negative log-likelihood per image, in nats. Under sigmoid that is the sum
            over all labels of an image.
        nll: the same after the fit.
        ece_before: expected calibration error. Under softmax it is that of each image's most
            probable label, under sigmoid that of its five most probable ones: a sigmoid looks at
            every label alone, and cannot know that being the first of all makes one more likely.
        ece: the same after the fit.
        images: how many images it was fitted on.
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
    """Find the logit scale at which the right labels are most likely under softmax.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings, or with ``pooling`` a row for each name;
            may be memory-mapped.
        embeddings: (B, D) float32 unit-norm image embeddings.
        targets: (B,) rows of the right labels, one per image; with ``pooling`` their places.
        logit_scale: the model's own, > 0.
        label_bias: (N,) float32 subtracted from the similarities, if they are to be used so.
        pooling: which rows are one label; None where each is.
        threads: workers; by default one per available core.

    Raises:
        EmbeddingError: for shapes that do not fit.
        InputError: for a target out of range, and when no scale is best: images that are all
            right by far want an infinite one, images that the labels do not fit want none.
    """
    check_arrays(matrix, embeddings, label_bias, pooling)
    labels = len(matrix) if pooling is None else pooling.labels
    rows = checked_rows(targets, labels, "label")
    if len(rows) != len(embeddings):
        raise InputError(f"{len(embeddings)} images but {len(rows)} right labels: give one each")
    if not (np.isfinite(logit_scale) and logit_scale > 0):
        raise InputError(f"logit_scale is {logit_scale}; it must be finite and above 0")
    held = _Labels(matrix, label_bias, pooling)

    def look(scales: Float64) -> _Pass:
        def work(part: slice) -> _Pass:
            return _batch(held, embeddings[part], rows[part], scales)

        return _joined(in_batches(len(rows), IMAGE_BATCH, work, threads))

    found = look(logit_scale * np.array(_FIRST))
    before, curve = found.point(0), found.points()
    _check_enclosed(curve, logit_scale)
    for _ in range(_MAX_PASSES):
        low, high, zero = _enclose(curve)
        best = min(curve, key=lambda point: abs(np.log(point.scale) - zero))
        if abs(np.log(best.scale) - zero) <= _TOLERANCE:
            break
        width = np.log(high.scale / low.scale)
        found = look(np.exp(np.clip(zero + _SPREAD * width, np.log(low.scale), np.log(high.scale))))
        curve += found.points()
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
class _Point:
    """The mean negative log-likelihood at one scale.

    ``slope`` and ``bend`` are its derivatives in the scale; ``confidence`` is the (B,) probability
    of each image's best label, ``correct`` whether that is right.
    """

    scale: float
    nll: float
    slope: float
    bend: float
    confidence: Float64
    correct: Bool


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one pass found: (S, B) arrays for S scales.

    For each image ``nll`` is the negative log-likelihood, ``slope`` and ``bend`` its derivatives,
    ``confidence`` the best label's probability and ``correct`` whether that one is right.
    """

    scales: Float64
    nll: Float64
    slope: Float64
    bend: Float64
    confidence: Float64
    correct: Bool

    def point(self, at: int) -> _Point:
        return _Point(
            float(self.scales[at]),
            float(self.nll[at].mean()),
            float(self.slope[at].mean()),
            float(self.bend[at].mean()),
            self.confidence[at],
            self.correct[at],
        )

    def points(self) -> list[_Point]:
        return [self.point(at) for at in range(len(self.scales))]


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """What labels are: see ``fit_temperature``."""

    matrix: Float32
    bias: Float32 | None
    pooling: Pooling | None

    @property
    def by_mass(self) -> Pooling | None:
        """What pools names by their mass, if anything does."""
        return self.pooling if self.pooling and self.pooling.how == "mass" else None

    def blocks(self, queries: Float32) -> Iterator[tuple[int, int, Float32]]:
        """Yield the first and last label, and (B, n) similarities: of names under ``mass``."""
        if (pooling := self.by_mass) is None:
            for first, block in similarity_blocks(self.matrix, queries, self.bias, self.pooling):
                yield first, first + block.shape[1], block
            return
        for first, last, block in row_blocks(self.matrix, queries, pooling):
            if self.bias is not None:
                block -= np.repeat(self.bias[first:last], pooling.counts[first:last])
            yield first, last, block

    def of_targets(self, queries: Float32, rows: Int64) -> tuple[Float64, Int64]:
        """Return similarities with the right labels, image by image, and how many each has."""
        images = np.arange(len(rows))
        if (pooling := self.by_mass) is None:
            found = pair_similarities(
                self.matrix,
                queries,
                images,
                rows,
                label_bias=self.bias,
                pooling=self.pooling,
            )
            return found, np.ones_like(images)
        counts = pooling.counts[rows]
        names, of_row = pooling.rows_of(rows), np.repeat(images, counts)
        found = pair_similarities(self.matrix, queries, of_row, names)
        if self.bias is not None:
            found -= np.repeat(self.bias[rows], counts)
        return found, counts


def _batch(labels: _Labels, queries: Float32, rows: Int64, scales: Float64) -> _Pass:
    """Take one batch of images past all labels.

    With d the similarity to a label less that to the right one, the likelihood's negative logarithm
    is log(sum(exp(scale * d))), and its derivatives are mean and variance of d under the softmax.
    Under ``mass`` d is that of a name, less that of the right label's nearest name; the same
    three of the right label's names alone are then taken from those of all.
    """
    batch = len(queries)
    own, counts = labels.of_targets(queries, rows)
    starts = np.cumsum(counts) - counts
    nearest = np.maximum.reduceat(own, starts)
    target = nearest.astype(np.float32)
    peak = np.full(batch, -np.inf, dtype=np.float32)
    best = np.zeros((len(scales), batch), dtype=np.int64)
    # The best label's share of the sum; without mass it is that of the peak.
    share = np.ones((len(scales), batch))
    sums = np.zeros((3, len(scales), batch))
    every = np.arange(batch)
    if labels.by_mass:
        share[:] = 0
    for first, last, distance in labels.blocks(queries):
        distance -= target[:, None]
        at = distance.argmax(axis=1)
        top = distance[every, at]
        higher = np.maximum(peak, top)
        # What was summed relative to the old peak is made relative to the new one.
        down = np.exp(scales[:, None] * (peak.astype(np.float64) - higher))
        sums *= down
        if labels.by_mass is None:
            best[:, top > peak] = at[top > peak] + first
        else:
            share *= down
            edges = labels.by_mass.starts[first:last] - labels.by_mass.starts[first]
        peak = higher
        below = distance - peak[:, None]
        weight = np.empty_like(below)
        for number, scale in enumerate(scales):
            np.exp(np.multiply(below, np.float32(scale), out=weight), out=weight)
            sums[0, number] += weight.sum(axis=1)
            if labels.by_mass is not None:
                masses = np.add.reduceat(weight, edges, axis=1)
                at = masses.argmax(axis=1)
                risen = masses[every, at] > share[number]
                best[number, risen] = at[risen] + first
                share[number, risen] = masses[every, at][risen]
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
    return _Pass(
        scales,
        log_sum + scales[:, None] * peak - np.log(own_sum),
        mean - own_mean,
        np.maximum(second - mean**2, 0) - np.maximum(own_second - own_mean**2, 0),
        np.minimum(share / sums[0], 1),
        best == rows,
    )


def _joined(parts: list[_Pass]) -> _Pass:
    return _Pass(
        parts[0].scales,
        np.concatenate([part.nll for part in parts], axis=1),
        np.concatenate([part.slope for part in parts], axis=1),
        np.concatenate([part.bend for part in parts], axis=1),
        np.concatenate([part.confidence for part in parts], axis=1),
        np.concatenate([part.correct for part in parts], axis=1),
    )


def _check_enclosed(curve: list[_Point], logit_scale: float) -> None:
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


def _enclose(curve: list[_Point]) -> tuple[_Point, _Point, float]:
    """Return the nearest points on both sides of the slope's zero, and where it is expected.

    The place is the logarithm of a scale: the zero of the cubic that has the slope's values and
    derivatives at both points.
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
