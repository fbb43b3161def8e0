"""The goal of a scan, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.scan.pooling import Logits, Pooling

VECTOR_BLOCK_ROWS = 1 << 13
"""The same for one query."""

Float16 = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over the label matrix found.

    A label is meant by its row; where labels have several, by its place among the N labels.

    Attributes:
        rows: (B, k) int64, best first; ties go to the lower row.
        similarities: (B, k) float64, inner products of the same rows; of several, pooled.
        logits: (B, k) float64, of the similarities less the label's bias.
        log_partition: (B,) float64, logsumexp of all N logits; None when it was not asked for.
        groups: (B, G) float64 probabilities of the groups; None when there are none. Sums add up
            to 1 over all groups.
    """

    rows: Int64
    similarities: Float64
    logits: Float64
    log_partition: Float64 | None
    groups: Float64 | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """What a scan is to find, on whatever device.

    Attributes:
        labels: N.
        k: labels per query.
        scale: multiplier of similarities.
        margin: a label is a candidate unless its similarity is so far below the k-th best.
        partition: whether to sum.
        pooling: see ``scan``.
        label_bias: see ``scan``.
    """

    labels: int
    k: int
    scale: float
    margin: float
    partition: bool
    pooling: Pooling | None = None
    label_bias: Float32 | None = None

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        top_k: int,
        scale: float,
        *,
        partition: bool,
        rounding: float,
        pooling: Pooling | None = None,
        label_bias: Float32 | None = None,
    ) -> Goal:
        """Return the goal for a matrix of an (N, D) shape; see ``scan``."""
        # A product of D float32 numbers, summed in any order, is off by no more than this, for
        # vectors of norm 1; and what is done to it afterwards by a little more.
        off = (shape[1] + 4) * 2.0**-24 + rounding
        if pooling is not None:
            off += pooling.rounding(scale)
        if label_bias is not None:
            off += 2.0**-23 * (1 + float(np.abs(label_bias).max(initial=0)))
        labels = shape[0] if pooling is None else pooling.labels
        return cls(labels, min(top_k, labels), scale, 2 * off, partition, pooling, label_bias)

    def edges(self, first: int, last: int, rows: int) -> list[int]:
        """Return where to cut labels ``first`` to ``last`` into parts of at most so many rows."""
        if self.pooling is None:
            return [*range(first, last, rows), last]
        return self.pooling.edges(first, last, rows)

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """Return the first row of label ``first``, and that of label ``last``."""
        if self.pooling is None:
            return first, last
        return int(self.pooling.starts[first]), int(self.pooling.starts[last])

    @property
    def most_rows(self) -> int:
        """The most rows that one label has."""
        return 1 if self.pooling is None else self.pooling.most

    def of_labels(self, logits: Logits, first: int, last: int) -> Logits:
        """Return the (B, n) logits of labels from those of their rows, which may be overwritten."""
        if self.pooling is not None:
            logits = self.pooling.pool(logits, first, last)
        if self.label_bias is not None:
            logits -= (self.label_bias[first:last] * self.scale).astype(logits.dtype)
        return logits

    def similarities(self, matrix: Float32 | Float16, labels: Int64, query: Float32) -> Float64:
        """Return the (n,) similarities of labels with one query, exactly, without their bias."""
        if self.pooling is None:
            return similarities_of(matrix, labels, query)
        of_rows = similarities_of(matrix, self.pooling.rows_of(labels), query)
        pooled: Float64 = self.pooling.take(labels).similarities(of_rows[None], self.scale)[0]
        return pooled

    def less_bias(self, similarities: Float64, labels: Int64) -> Float64:
        """Return similarities less the bias of their labels, both of one shape."""
        if self.label_bias is None:
            return similarities
        return np.asarray(similarities - self.label_bias[labels])


@dataclass(frozen=True, slots=True)
class Part:
    """The scan for one batch of queries; ``log_sums`` has no bias in it yet."""

    rows: Int64
    similarities: Float64
    log_sums: Float64
    groups: Float64 | None = None


def joined(parts: Sequence[Part], goal: Goal, logit_bias: float) -> Scan:
    """Return the scan of all batches."""
    rows = np.concatenate([np.empty((0, goal.k), dtype=np.int64), *(part.rows for part in parts)])
    similarities = np.concatenate([np.empty((0, goal.k)), *(part.similarities for part in parts)])
    log_sums = np.concatenate([np.empty(0), *(part.log_sums for part in parts)])
    groups = [part.groups for part in parts if part.groups is not None]
    return Scan(
        rows,
        similarities,
        goal.less_bias(similarities, rows) * goal.scale + logit_bias,
        log_sums + logit_bias if goal.partition else None,
        np.concatenate(groups) if groups else None,
    )


def similarities_of(matrix: Float32 | Float16, rows: Int64, query: Float32) -> Float64:
    """Return the (n,) float64 inner products of some rows with one query.

    einsum, not BLAS: its result for a row does not depend on which rows stand beside it.
    """
    wide = query.astype(np.float64)
    found = np.empty(len(rows))
    for start in range(0, len(rows), 4_096):
        some = matrix[rows[start : start + 4_096]].astype(np.float64)
        np.einsum("nd,d->n", some, wide, out=found[start : start + 4_096])
    return found
