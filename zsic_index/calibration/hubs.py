"""A bias per label against hubs, fitted to images without labels.

Hubs are labels that are similar to every image and are predicted too often. Nearest Neighbor
Normalization (Chowdhury et al. 2024, arXiv 2410.24114) subtracts from each label's similarities a
fraction of its mean similarity to the reference images nearest to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic_index.calibration.id_lookup import look_up
from zsic_index.calibration.passes import IMAGE_BATCH, check_arrays, map_slices
from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.scan.pooling import Pooling

REFERENCE_BLOCK = 4_096
"""Reference images per block: with IMAGE_BATCH labels 4 MiB of similarities."""


@dataclass(frozen=True, slots=True, eq=False)
class HubBias:
    """Bias that is subtracted from the similarities of each label.

    Attributes:
        k: number of nearest reference images that were averaged.
        alpha: fraction of that mean which is subtracted.
        references: number of reference images.
        label_ids: (N,) int64, ascending.
        bias: (N,) float32 bias of each label; mean 0.
    """

    k: int
    alpha: float
    references: int
    label_ids: Int64
    bias: Float32

    def of(self, label_ids: Int64) -> Float32:
        """Return the bias of each label id, in the shape given; 0, the mean, for unknown ids."""
        return look_up(self.label_ids, self.bias, label_ids, 0.0)


def fit_hub_bias(
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

    The mean over all labels is then subtracted, which changes neither the order of labels nor
    softmax probabilities, and keeps sigmoid probabilities at their level.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings, or with ``pooling`` a row for each name;
            may be memory-mapped.
        references: (R, D) float32 unit-norm embeddings of images like those of later queries.
        k: number of nearest images, 1 to R.
        alpha: at least 0; 0 subtracts nothing. Choose k and alpha on a few labelled images.
        label_ids: (N,) distinct ids; by default the rows.
        pooling: groups of rows that form one label; None if each row is a label.
        logit_scale: the model's own; only used if names are pooled by ``mass``.
        threads: number of workers; by default one per available core.

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

    def nearest_means(part: slice) -> Float64:
        if pooling is None:
            return _nearest_mean(lambda images: matrix[part] @ images.T, references, k)
        part_labels = np.arange(part.start, part.stop)
        names, part_pooling = matrix[pooling.rows_of(part_labels)], pooling.take(part_labels)

        def pooled_similarities(images: Float32) -> Float32:
            of_names = (images @ names.T).astype(np.float64)
            return part_pooling.similarities(of_names, logit_scale).T.astype(np.float32)

        return _nearest_mean(pooled_similarities, references, k)

    means = alpha * np.concatenate(map_slices(nearest_means, labels, IMAGE_BATCH, threads))
    order = np.argsort(ids)
    bias = (means - means.mean())[order].astype(np.float32)
    return HubBias(k, float(alpha), len(references), ids[order], bias)


def _nearest_mean(
    similarities: Callable[[Float32], Float32], references: Float32, k: int
) -> Float64:
    """Return the (n,) mean of each label's k largest similarities.

    Args:
        similarities: function from (b, D) image embeddings to (n, b) similarities.
        references: (R, D) image embeddings, passed in blocks.
        k: number of similarities that are averaged.
    """
    nearest: Float32 | None = None
    for first in range(0, len(references), REFERENCE_BLOCK):
        block = similarities(references[first : first + REFERENCE_BLOCK])
        candidates = block if nearest is None else np.concatenate([nearest, block], axis=1)
        kept = min(k, candidates.shape[1])
        nearest = np.partition(candidates, candidates.shape[1] - kept, axis=1)[:, -kept:]
    assert nearest is not None, "there are at least k images"
    return np.asarray(nearest.mean(axis=1, dtype=np.float64))
