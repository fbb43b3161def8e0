"""A bias per label against hubs, from images without labels.

Some labels are near to every image and come out first too often. Nearest Neighbor Normalization
(Chowdhury et al. 2024, arXiv 2410.24114) subtracts from each label's similarities a part of what it
reaches with the reference images that are nearest to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic_index.calibration.by_id import by_id
from zsic_index.calibration.passes import IMAGE_BATCH, check_arrays, in_batches
from zsic_index.errors import InputError
from zsic_index.scoring import Float32, Float64, Int64

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
        found = by_id(self.label_ids, self.bias.astype(np.float64), label_ids, 0.0)
        return found.astype(np.float32)


def hub_bias(
    matrix: Float32,
    references: Float32,
    k: int,
    alpha: float,
    *,
    label_ids: npt.ArrayLike | None = None,
    threads: int | None = None,
) -> HubBias:
    """Compute the bias of each label: alpha times its mean similarity to the k nearest images.

    The mean over all labels is taken off, which changes no order and no softmax, and leaves the
    level of sigmoid probabilities where it was.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings; may be memory-mapped.
        references: (R, D) float32 unit-norm embeddings of images such as will be asked about.
        k: from 1 to R.
        alpha: at least 0; 0 subtracts nothing. Both are best chosen on a few labelled images.
        label_ids: (N,) distinct ids; by default the rows.
        threads: workers; by default one per available core.

    Raises:
        EmbeddingError: for shapes that do not fit.
        InputError: for k or alpha out of range, or label ids that do not fit.
    """
    check_arrays(matrix, references)
    if not 1 <= k <= len(references):
        raise InputError(f"k is {k}; it must be from 1 to the {len(references)} reference images")
    if not (np.isfinite(alpha) and alpha >= 0):
        raise InputError(f"alpha is {alpha}; it must be finite and at least 0")
    ids = np.arange(len(matrix)) if label_ids is None else np.asarray(label_ids, dtype=np.int64)
    if ids.shape != matrix.shape[:1] or len(np.unique(ids)) != len(ids):
        raise InputError(f"label_ids must be {len(matrix)} distinct numbers, one for each label")

    def work(part: slice) -> Float64:
        return _nearest_mean(matrix[part], references, k)

    means = alpha * np.concatenate(in_batches(len(matrix), IMAGE_BATCH, work, threads))
    order = np.argsort(ids)
    bias = (means - means.mean())[order].astype(np.float32)
    return HubBias(k, float(alpha), len(references), ids[order], bias)


def _nearest_mean(labels: Float32, references: Float32, k: int) -> Float64:
    """Return the (n,) mean of each label's k largest similarities."""
    nearest = np.full((len(labels), k), -np.inf, dtype=np.float32)
    for first in range(0, len(references), REFERENCE_BLOCK):
        block = labels @ references[first : first + REFERENCE_BLOCK].T
        held = np.concatenate([nearest, block], axis=1)
        nearest = np.partition(held, held.shape[1] - k, axis=1)[:, -k:]
    return np.asarray(nearest.mean(axis=1, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class FoldedBias:
    """A label matrix with the label bias as one more dimension, for a scan that knows of none.

    For a row of ``matrix`` and a row of ``queries(images)``, similarity less label bias is their
    inner product times ``factor``; so a scan takes ``logit_scale * factor`` as its scale.

    Attributes:
        matrix: (N, D + 1) float32, no row longer than 1.
        factor: what inner products are multiplied by.
    """

    matrix: Float32
    factor: float

    @classmethod
    def of(cls, matrix: Float32, label_bias: Float32) -> FoldedBias:
        """Fold an (N,) float32 bias into a copy of an (N, D) label matrix."""
        check_arrays(matrix, matrix, label_bias)
        # Lengths of 1 and below are what the scan's bound on rounding is for.
        longest = float(np.sqrt(1 + float(np.abs(label_bias).max()) ** 2)) * (1 + 2.0**-20)
        folded = np.empty((len(matrix), matrix.shape[1] + 1), dtype=np.float32)
        np.divide(matrix, np.float32(longest), out=folded[:, :-1])
        np.divide(label_bias, np.float32(-longest), out=folded[:, -1])
        return cls(folded, longest * 2**0.5)

    @staticmethod
    def queries(images: Float32) -> Float32:
        """Return (B, D + 1) float32 unit-norm queries for (B, D) image embeddings."""
        longer = np.pad(images, ((0, 0), (0, 1)), constant_values=1.0)
        return np.asarray(longer / np.float32(2**0.5), dtype=np.float32)
