"""A bias per label against hubs, from images without labels.

Some labels are near to every image and come out first too often. Nearest Neighbor Normalization
(Chowdhury et al. 2024, arXiv 2410.24114) subtracts from each label's similarities a part of what it
reaches with the reference images that are nearest to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic_index.calibration.by_id import by_id
from zsic_index.calibration.passes import IMAGE_BATCH, check_arrays, in_batches
from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.scan.pooling import Pooling

REFERENCE_BLOCK = 4_096
"""Reference images per block: with IMAGE_BATCH labels 4 MiB of similarities."""


@dataclass(frozen=True, slots=True, eq=False)
class HubBias:
    """What is subtracted from the similarities of each label.

    Attributes:
        k: how many of the nearest reference images were averaged.
        alpha: the part of that mean which is subtracted.
        references: how many reference images there were.
        label_ids: (N,) int64, ascending.
        bias: (N,) float32; its mean is 0.
    """

    k: int
    alpha: float
    references: int
    label_ids: Int64
    bias: Float32

    def of(self, label_ids: Int64) -> Float32:
        """Return the bias of each label id, in the shape given; 0, the mean, for unknown ones."""
        return by_id(self.label_ids, self.bias, label_ids, 0.0)


def hub_bias(
    matrix: Float32,
    references: Float32,
    k: int,
    alpha: float,
    *,
    label_ids: npt.ArrayLike | None = None,
    pooling: Pooling | None = None,
    logit_scale: float = 1.0,
    threads: int | None = None,
) -> HubBias:
    """Compute the bias of each label: alpha times its mean similarity to the k nearest images.

    The mean over all labels is taken off, which changes no order and no softmax, and leaves the
    level of sigmoid probabilities where it was.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings, or with ``pooling`` a row for each name;
            may be memory-mapped.
        references: (R, D) float32 unit-norm embeddings of images such as will be asked about.
        k: from 1 to R.
        alpha: at least 0; 0 subtracts nothing. Both are best chosen on a few labelled images.
        label_ids: (N,) distinct ids; by default the rows.
        pooling: which rows are one label; None where each is.
        logit_scale: the model's own, which matters where names are pooled by ``mass``.
        threads: workers; by default one per available core.

    Raises:
        EmbeddingError: for shapes that do not fit.
        InputError: for k or alpha out of range, or label ids that do not fit.
    """
    check_arrays(matrix, references, pooling=pooling)
    labels = len(matrix) if pooling is None else pooling.labels
    if not 1 <= k <= len(references):
        raise InputError(f"k is {k}; it must be from 1 to the {len(references)} reference images")
    if not (np.isfinite(alpha) and alpha >= 0):
        raise InputError(f"alpha is {alpha}; it must be finite and at least 0")
    ids = np.arange(labels) if label_ids is None else np.asarray(label_ids, dtype=np.int64)
    if ids.shape != (labels,) or len(np.unique(ids)) != len(ids):
        raise InputError(f"label_ids must be {labels} distinct numbers, one for each label")

    def work(part: slice) -> Float64:
        if pooling is None:
            return _nearest_mean(lambda images: matrix[part] @ images.T, references, k)
        some = np.arange(part.start, part.stop)
        names, own = matrix[pooling.rows_of(some)], pooling.take(some)

        def pooled(images: Float32) -> Float32:
            of_names = (images @ names.T).astype(np.float64)
            return own.similarities(of_names, logit_scale).T.astype(np.float32)

        return _nearest_mean(pooled, references, k)

    means = alpha * np.concatenate(in_batches(labels, IMAGE_BATCH, work, threads))
    order = np.argsort(ids)
    bias = (means - means.mean())[order].astype(np.float32)
    return HubBias(k, float(alpha), len(references), ids[order], bias)


def _nearest_mean(
    similarities: Callable[[Float32], Float32], references: Float32, k: int
) -> Float64:
    """Return the (n,) mean of each label's k largest similarities.

    ``similarities`` gives the (n, b) ones of b images.
    """
    nearest: Float32 | None = None
    for first in range(0, len(references), REFERENCE_BLOCK):
        block = similarities(references[first : first + REFERENCE_BLOCK])
        held = block if nearest is None else np.concatenate([nearest, block], axis=1)
        kept = min(k, held.shape[1])
        nearest = np.partition(held, held.shape[1] - kept, axis=1)[:, -kept:]
    assert nearest is not None, "there are k images at least"
    return np.asarray(nearest.mean(axis=1, dtype=np.float64))
