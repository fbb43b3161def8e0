"""Specification of a scan, on any device, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.scan.groups import Grouping
from zsic_index.scan.pooling import Logits, Pooling

VECTOR_BLOCK_ROWS = 1 << 13
"""Rows per block for a single query."""

EXACT_TERMS = 32
"""Labels per query whose terms in the values of groups are exact. The rounding error of a float32
logit, some 1e-5 for a logit of 60, is by far the largest error of a group's probability; the labels
that follow are mostly too improbable for it to matter."""

Float16 = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Result of one pass over the label matrix.

    ``rows`` are labels by position: the row of the matrix, or where labels have several rows, the
    position among the N labels.

    Attributes:
        rows: (B, k) int64, best first; ties go to the lower row.
        similarities: (B, k) float64 inner products of these rows, pooled where a label has several.
        logits: (B, k) float64 logits, of the similarities minus the label bias.
        log_partition: (B,) float64 logsumexp of all N logits; None when it was not requested.
        groups: (B, G) float64 probabilities of the groups, with reduction ``sum`` adding up to 1;
            None without a grouping.
    """

    rows: Int64
    similarities: Float64
    logits: Float64
    log_partition: Float64 | None
    groups: Float64 | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ScanSpec:
    """Specification of a scan, whatever the device.

    Attributes:
        labels: N, the number of labels.
        k: labels per query.
        scale: multiplier of similarities.
        bias: added to every logit.
        margin: distance of a similarity below the k-th best up to which a label is a candidate.
        partition: compute the log-partition.
        pooling: see ``scan``.
        label_bias: see ``scan``.
        grouping: see ``scan``.
    """

    labels: int
    k: int
    scale: float
    bias: float
    margin: float
    partition: bool
    pooling: Pooling | None = None
    label_bias: Float32 | None = None
    grouping: Grouping | None = None

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        top_k: int,
        scale: float,
        bias: float,
        *,
        partition: bool,
        rounding: float,
        pooling: Pooling | None = None,
        label_bias: Float32 | None = None,
        grouping: Grouping | None = None,
    ) -> ScanSpec:
        """Return the specification for a matrix of shape (N, D); see ``scan``."""
        # Bound of the rounding error of a float32 inner product of D unit-norm numbers, summed in
        # any order; pooling and bias add a little.
        off = (shape[1] + 4) * 2.0**-24 + rounding
        if pooling is not None:
            off += pooling.rounding(scale)
        if label_bias is not None:
            off += 2.0**-23 * (1 + float(np.abs(label_bias).max(initial=0)))
        labels = shape[0] if pooling is None else pooling.labels
        k = min(top_k, labels)
        return cls(labels, k, scale, bias, 2 * off, partition, pooling, label_bias, grouping)

    @property
    def settled(self) -> int:
        """Number of best labels per query, at least k, that are computed exactly."""
        return self.k if self.grouping is None else max(self.k, min(EXACT_TERMS, self.labels))

    def edges(self, first: int, last: int, rows: int) -> list[int]:
        """Return the edges between parts of at most ``rows`` rows, for labels first to last."""
        if self.pooling is None:
            return [*range(first, last, rows), last]
        return self.pooling.edges(first, last, rows)

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """Return the first row of label ``first`` and the first row of label ``last``."""
        if self.pooling is None:
            return first, last
        return int(self.pooling.starts[first]), int(self.pooling.starts[last])

    @property
    def most_rows(self) -> int:
        """Largest number of rows of one label."""
        return 1 if self.pooling is None else self.pooling.most

    def pool_rows(self, logits: Logits, first: int, last: int) -> Logits:
        """Return the (B, n) logits of labels from those of their rows, which may be overwritten."""
        if self.pooling is not None:
            logits = self.pooling.pool(logits, first, last)
        if self.label_bias is not None:
            logits -= (self.label_bias[first:last] * self.scale).astype(logits.dtype)
        return logits

    def similarities(self, matrix: Float32 | Float16, labels: Int64, query: Float32) -> Float64:
        """Return the exact (n,) similarities of labels with one query, without the label bias."""
        if self.pooling is None:
            return similarities_of(matrix, labels, query)
        of_rows = similarities_of(matrix, self.pooling.rows_of(labels), query)
        pooled: Float64 = self.pooling.take(labels).similarities(of_rows[None], self.scale)[0]
        return pooled

    def subtract_bias(self, similarities: Float64, labels: Int64) -> Float64:
        """Return similarities minus the bias of their labels, both of one shape."""
        if self.label_bias is None:
            return similarities
        return np.asarray(similarities - self.label_bias[labels])


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Result for one batch of queries; ``log_sums`` is without the logit bias."""

    rows: Int64
    similarities: Float64
    log_sums: Float64
    groups: Float64 | None = None


def join_batches(results: Sequence[BatchResult], spec: ScanSpec) -> ScanResult:
    """Concatenate the results of all batches."""
    rows = np.concatenate(
        [np.empty((0, spec.k), dtype=np.int64), *(result.rows for result in results)]
    )
    similarities = np.concatenate(
        [np.empty((0, spec.k)), *(result.similarities for result in results)]
    )
    log_sums = np.concatenate([np.empty(0), *(result.log_sums for result in results)])
    groups = [result.groups for result in results if result.groups is not None]
    return ScanResult(
        rows,
        similarities,
        spec.subtract_bias(similarities, rows) * spec.scale + spec.bias,
        log_sums + spec.bias if spec.partition else None,
        np.concatenate(groups) if groups else None,
    )


def similarities_of(matrix: Float32 | Float16, rows: Int64, query: Float32) -> Float64:
    """Return the (n,) float64 inner products of some rows with one query.

    With einsum and not BLAS, so that the result of a row does not depend on its neighbours.
    """
    wide = query.astype(np.float64)
    products = np.empty(len(rows))
    for start in range(0, len(rows), 4_096):
        block = matrix[rows[start : start + 4_096]].astype(np.float64)
        np.einsum("nd,d->n", block, wide, out=products[start : start + 4_096])
    return products
