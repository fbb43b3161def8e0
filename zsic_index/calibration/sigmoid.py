"""Fit the logit scale and logit bias of a sigmoid.

Platt's logistic regression (1999) of "is this label correct for this image" on the similarity, over
all B x N pairs, without sampling: the loss depends only on the distribution of similarities, so one
pass counts them in very narrow bins, and the fit itself takes milliseconds. Each worker holds one
block of similarities and one histogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from zsic_index.calibration.passes import (
    IMAGE_BATCH,
    check_arrays,
    map_slices,
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
"""Bins between the lowest and the highest possible similarity. Without a label bias a bin is 1.5e-5
wide, or 0.0015 in the logit at a scale of 100."""

ECE_TOP_K = 5
"""Most probable labels of each image that the calibration error is measured on."""

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
    """Find the logit scale and bias that maximise the likelihood of the labels under sigmoid.

    Every label that is not given as correct for an image counts as wrong for it. With one label per
    image, the probabilities are therefore of that one label; for probabilities of everything that
    an image shows, the labels must be complete.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings, or with ``pooling`` a row for each name;
            may be memory-mapped.
        embeddings: (B, D) float32 unit-norm image embeddings.
        truth: correct labels of the B images, at least one in all.
        logit_scale: the model's own, > 0.
        logit_bias: the model's own.
        label_bias: (N,) float32 bias that is subtracted from the similarities, if any.
        pooling: groups of rows that form one label, by ``max``; None if each row is a label.
        threads: number of workers; by default one per available core.

    Raises:
        EmbeddingError: for shapes that do not fit.
        InputError: when there are no correct labels, or no scale is best: see ``fit_temperature``.
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
    # Powers of two, so that dividing by the bin width is exact.
    furthest = 1.0 if label_bias is None else 1.0 + float(np.abs(label_bias).max())
    reach = 2.0 ** math.ceil(math.log2(furthest))

    def batch_statistics(part: slice) -> _BatchStatistics:
        return _batch_statistics(matrix, embeddings[part], reach, label_bias, pooling)

    batches = map_slices(batch_statistics, len(embeddings), IMAGE_BATCH, threads)
    own = pair_similarities(
        matrix, embeddings, truth.image, truth.label, label_bias=label_bias, pooling=pooling
    )
    counts = np.sum([batch.pairs for batch in batches], axis=0)
    filled = np.flatnonzero(counts)
    width = 2 * reach / SIMILARITY_BINS
    middles = np.asarray((filled + 0.5) * width - reach, dtype=np.float64)
    loss = _SigmoidLoss(
        counts[filled].astype(np.float64), middles, width, float(own.sum()), len(own)
    )
    scale, bias = _minimise(loss, logit_scale, logit_bias)
    best = np.concatenate([batch.best for batch in batches]).astype(np.float64)
    correct = truth.contains(np.concatenate([batch.rows for batch in batches]))
    return ScaleFit(
        scale_before=float(logit_scale),
        scale=scale,
        bias_before=float(logit_bias),
        bias=bias,
        nll_before=loss.at(logit_scale, logit_bias) / len(embeddings),
        nll=loss.at(scale, bias) / len(embeddings),
        ece_before=_calibration_error(best * logit_scale + logit_bias, correct),
        ece=_calibration_error(best * scale + bias, correct),
        images=len(embeddings),
    )


@dataclass(frozen=True, slots=True)
class _BatchStatistics:
    """Statistics of one batch of images.

    Attributes:
        pairs: (SIMILARITY_BINS + 1,) int64 number of pairs in each similarity bin.
        best: (B, min(ECE_TOP_K, N)) float32 largest similarities of each image, unordered.
        rows: labels of ``best``, in its shape.
    """

    pairs: Int64
    best: Float32
    rows: Int64


@dataclass(frozen=True, slots=True)
class _SigmoidLoss:
    """Negative log-likelihood of all pairs as a function of scale and bias.

    A wrong pair costs softplus(z), a correct one softplus(-z) = softplus(z) - z. So all pairs share
    one histogram, and for the correct ones only the sum of z is needed in addition.

    Attributes:
        counts: (n,) number of pairs in each bin.
        middles: (n,) similarity at the middle of each bin.
        width: width of a bin.
        correct_sum: sum of the similarities of correct pairs.
        correct: number of correct pairs.
    """

    counts: Float64
    middles: Float64
    width: float
    correct_sum: float
    correct: int

    def at(self, scale: float, bias: float) -> float:
        """Return the loss at a scale and bias."""
        logits = scale * self.middles + bias
        as_wrong = float(self.counts @ np.logaddexp(0, logits))
        return as_wrong - scale * self.correct_sum - bias * self.correct

    def step(self, scale: float, bias: float) -> tuple[Float64, float]:
        """Return the (2,) Newton step towards the minimum, and the decrease that it predicts."""
        probability = activate(scale * self.middles + bias, "sigmoid", None)
        weight = self.counts * probability
        slope = np.array([weight @ self.middles - self.correct_sum, weight.sum() - self.correct])
        weight = weight * (1 - probability)
        mixed = weight @ self.middles
        bend = np.array([[weight @ self.middles**2, mixed], [mixed, weight.sum()]])
        step = -np.linalg.lstsq(bend, slope)[0]
        return step, -float(slope @ step)


def _batch_statistics(
    matrix: Float32,
    queries: Float32,
    reach: float,
    label_bias: Float32 | None,
    pooling: Pooling | None,
) -> _BatchStatistics:
    # One more bin for similarities that rounding has put above 1.
    size = SIMILARITY_BINS + 1
    pairs = np.zeros(size, dtype=np.int64)
    top_k = min(ECE_TOP_K, len(matrix) if pooling is None else pooling.labels)
    best = np.full((len(queries), top_k), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), top_k), -1, dtype=np.int64)
    for first, block in similarity_blocks(matrix, queries, label_bias, pooling):
        improved = np.flatnonzero(block.max(axis=1) > best.min(axis=1))
        candidates = np.concatenate([best[improved], block[improved]], axis=1)
        at = np.argpartition(candidates, candidates.shape[1] - top_k, axis=1)[:, -top_k:]
        best[improved] = np.take_along_axis(candidates, at, axis=1)
        # The first top_k columns are from earlier blocks.
        earlier = np.take_along_axis(rows[improved], np.minimum(at, top_k - 1), axis=1)
        rows[improved] = np.where(at < top_k, earlier, at - top_k + first)
        block += np.float32(reach)
        block *= np.float32(SIMILARITY_BINS / (2 * reach))
        pairs += np.bincount(block.astype(np.int64).ravel(), minlength=size)
    return _BatchStatistics(pairs, best, rows)


def _minimise(loss: _SigmoidLoss, scale: float, bias: float) -> tuple[float, float]:
    """Minimise the loss by Newton's method, halving a step until it decreases the loss."""
    limit = scale * MAX_CHANGE
    at, value = np.array([scale, bias], dtype=np.float64), loss.at(scale, bias)
    for _ in range(_MAX_STEPS):
        step, predicted = loss.step(*at)
        if predicted <= 1e-12 * (1 + abs(value)):
            break
        while (lower := loss.at(*(at + step))) > value - 1e-4 * predicted and predicted > 1e-15:
            step, predicted = step / 2, predicted / 2
        at, value = at + step, lower
        # A loss that the bins cannot tell from 0 has no minimum: it decreases for ever.
        if at[0] > limit or value < 2 * loss.width * at[0] * loss.correct:
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


def _calibration_error(logits: Float64, correct: Bool) -> float:
    return reliability(activate(logits, "sigmoid", None).ravel(), correct.ravel()).error
