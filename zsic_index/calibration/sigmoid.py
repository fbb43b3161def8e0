"""The two numbers that calibrate a sigmoid: logit scale and logit bias.

Platt's logistic regression (1999) of "is this label right for this image" on the similarity, over
all B x N pairs. Nothing is sampled: the loss depends on the similarities only through how many
there are of each value, so one pass counts them in bins too fine to matter, and the fit itself
takes milliseconds. What is held is one block of similarities and one count of bins per worker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from zsic_index.calibration.passes import (
    IMAGE_BATCH,
    check_arrays,
    in_batches,
    pair_similarities,
    similarity_blocks,
)
from zsic_index.calibration.reliability import reliability
from zsic_index.calibration.temperature import MAX_CHANGE, ScaleFit
from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Bool, Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.scan.pooling import Pooling
from zsic_index.scan.probabilities import activate

SIMILARITY_BINS = 1 << 17
"""Bins between the lowest and the highest similarity there can be. Without a label bias they are
1.5e-5 wide, or 0.0015 in the logit at a scale of 100."""

SHOWN = 5
"""Labels per image that the calibration error is measured on: the most probable ones."""

_MAX_STEPS = 100


def fit_sigmoid(
    matrix: Float32,
    embeddings: Float32,
    truth: Truth,
    *,
    logit_scale: float,
    logit_bias: float,
    label_bias: Float32 | None = None,
    pooling: Pooling | None = None,
    threads: int | None = None,
) -> ScaleFit:
    """Find the logit scale and bias at which right and wrong labels are most likely under sigmoid.

    Every label that is not right for an image counts as wrong for it. Images with one label each
    therefore teach how probable that one is; for probabilities of all that is to be seen on an
    image, its labels have to be complete.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings, or with ``pooling`` a row for each name;
            may be memory-mapped.
        embeddings: (B, D) float32 unit-norm image embeddings.
        truth: right labels of the B images, by row or, with ``pooling``, by place.
        logit_scale: the model's own, > 0.
        logit_bias: the model's own.
        label_bias: (N,) float32 subtracted from the similarities, if they are to be used so.
        pooling: which rows are one label, by ``max``; None where each is.
        threads: workers; by default one per available core.

    Raises:
        EmbeddingError: for shapes that do not fit.
        InputError: when there are no right labels, and when no scale is best: see
            ``fit_temperature``.
    """
    assert pooling is None or pooling.how == "max", "only softmax has a mass that adds up"
    check_arrays(matrix, embeddings, label_bias, pooling)
    labels = len(matrix) if pooling is None else pooling.labels
    if (truth.images, truth.labels) != (len(embeddings), labels):
        raise InputError(
            f"the right labels are of {truth.images:,} images and {truth.labels:,} labels; "
            f"there are {len(embeddings):,} and {labels:,}"
        )
    if not len(truth.image):
        raise InputError("no image has a right label: give at least one")
    if not (np.isfinite(logit_scale) and logit_scale > 0 and np.isfinite(logit_bias)):
        raise InputError(
            f"logit_scale {logit_scale} and logit_bias {logit_bias} must be finite, "
            "the scale above 0"
        )
    # A power of two, so that putting into bins rounds nothing.
    furthest = 1.0 if label_bias is None else 1.0 + float(np.abs(label_bias).max())
    reach = 2.0 ** math.ceil(math.log2(furthest))

    def work(part: slice) -> _Counts:
        return _count(matrix, embeddings[part], reach, label_bias, pooling)

    parts = in_batches(len(embeddings), IMAGE_BATCH, work, threads)
    own = pair_similarities(
        matrix, embeddings, truth.image, truth.label, label_bias=label_bias, pooling=pooling
    )
    counts = np.sum([part.pairs for part in parts], axis=0)
    filled = np.flatnonzero(counts)
    width = 2 * reach / SIMILARITY_BINS
    middles = np.asarray((filled + 0.5) * width - reach, dtype=np.float64)
    loss = _Loss(counts[filled].astype(np.float64), middles, width, float(own.sum()), len(own))
    scale, bias = _minimise(loss, logit_scale, logit_bias)
    best = np.concatenate([part.best for part in parts]).astype(np.float64)
    correct = truth.contains(np.concatenate([part.rows for part in parts]))
    return ScaleFit(
        scale_before=float(logit_scale),
        scale=scale,
        bias_before=float(logit_bias),
        bias=bias,
        nll_before=loss.at(logit_scale, logit_bias) / len(embeddings),
        nll=loss.at(scale, bias) / len(embeddings),
        ece_before=_error(best * logit_scale + logit_bias, correct),
        ece=_error(best * scale + bias, correct),
        images=len(embeddings),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """What one batch of images gives.

    ``pairs`` is (SIMILARITY_BINS + 1,) pairs per bin; ``best`` and ``rows`` are (B, SHOWN) of each
    image's largest similarities, in no order, fewer where there are not so many labels.
    """

    pairs: Int64
    best: Float32
    rows: Int64


@dataclass(frozen=True, slots=True)
class _Loss:
    """The negative log-likelihood of all pairs.

    A wrong pair costs softplus(z), a right one softplus(-z) = softplus(z) - z: so all pairs are
    counted alike, and of the right ones only the sum of z is needed.

    Attributes:
        counts: (n,) pairs per bin.
        middles: (n,) similarity of each bin.
        width: of a bin.
        right_sum: sum of the right pairs' similarities.
        right: how many right pairs there are.
    """

    counts: Float64
    middles: Float64
    width: float
    right_sum: float
    right: int

    def at(self, scale: float, bias: float) -> float:
        logits = scale * self.middles + bias
        every = float(self.counts @ np.logaddexp(0, logits))
        return every - scale * self.right_sum - bias * self.right

    def step(self, scale: float, bias: float) -> tuple[Float64, float]:
        """Return Newton's (2,) step towards the minimum, and the decrease that it promises."""
        probability = activate(scale * self.middles + bias, "sigmoid", None)
        weight = self.counts * probability
        slope = np.array([weight @ self.middles - self.right_sum, weight.sum() - self.right])
        weight = weight * (1 - probability)
        mixed = weight @ self.middles
        bend = np.array([[weight @ self.middles**2, mixed], [mixed, weight.sum()]])
        step = -np.linalg.lstsq(bend, slope)[0]
        return step, -float(slope @ step)


def _count(
    matrix: Float32,
    queries: Float32,
    reach: float,
    label_bias: Float32 | None,
    pooling: Pooling | None,
) -> _Counts:
    # One more for similarities that rounding has put above 1.
    size = SIMILARITY_BINS + 1
    pairs = np.zeros(size, dtype=np.int64)
    shown = min(SHOWN, len(matrix) if pooling is None else pooling.labels)
    best = np.full((len(queries), shown), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), shown), -1, dtype=np.int64)
    for first, block in similarity_blocks(matrix, queries, label_bias, pooling):
        hot = np.flatnonzero(block.max(axis=1) > best.min(axis=1))
        held = np.concatenate([best[hot], block[hot]], axis=1)
        at = np.argpartition(held, held.shape[1] - shown, axis=1)[:, -shown:]
        best[hot] = np.take_along_axis(held, at, axis=1)
        # The first columns are those held so far.
        so_far = np.take_along_axis(rows[hot], np.minimum(at, shown - 1), axis=1)
        rows[hot] = np.where(at < shown, so_far, at - shown + first)
        block += np.float32(reach)
        block *= np.float32(SIMILARITY_BINS / (2 * reach))
        pairs += np.bincount(block.astype(np.int64).ravel(), minlength=size)
    return _Counts(pairs, best, rows)


def _minimise(loss: _Loss, scale: float, bias: float) -> tuple[float, float]:
    """Newton's method, with steps halved until they go down."""
    limit = scale * MAX_CHANGE
    at, value = np.array([scale, bias], dtype=np.float64), loss.at(scale, bias)
    for _ in range(_MAX_STEPS):
        step, promised = loss.step(*at)
        if promised <= 1e-12 * (1 + abs(value)):
            break
        while (lower := loss.at(*(at + step))) > value - 1e-4 * promised and promised > 1e-15:
            step, promised = step / 2, promised / 2
        at, value = at + step, lower
        # A loss that bins cannot tell from 0 has no minimum to go to: it falls on and on.
        if at[0] > limit or value < 2 * loss.width * at[0] * loss.right:
            raise InputError(
                f"no logit_scale up to {limit:g} is too large for these images, so they cannot "
                "tell the right one: give more of them, and harder ones"
            )
    if at[0] <= 0:
        raise InputError(
            f"the best logit_scale for these images is {at[0]:g}, not above 0: their labels do "
            "not fit them; check the labels"
        )
    return float(at[0]), float(at[1])


def _error(logits: Float64, correct: Bool) -> float:
    return reliability(activate(logits, "sigmoid", None).ravel(), correct.ravel()).error
