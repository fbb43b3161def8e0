"""Name pooling: labels with one row for each of their names. Arrays only.

A scan walks rows, and its results are about labels. A ``Pooling`` turns the logits of a label's
rows, which are adjacent, into the logit of the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64

How = Literal["max", "mass"]
"""Pooling of the logits of a label's names: the largest, or their logsumexp, so that the label's
softmax probability is the sum of its names'."""

Logits = TypeVar("Logits", Float32, Float64)


@dataclass(frozen=True, eq=False)
class Pooling:
    """Assignment of R rows to N labels, and the pooling of their logits.

    Attributes:
        starts: (N + 1,) int64, ascending: first row of each label, then R. Each label has a row.
        how: ``max`` or ``mass``.
    """

    starts: Int64
    how: How

    @classmethod
    def of_rows(cls, label_of_row: Int64, how: How) -> Pooling:
        """Return the pooling for the (R,) label of each row; rows of a label are adjacent."""
        firsts = np.flatnonzero(np.diff(label_of_row, prepend=label_of_row[:1] - 1))
        return cls(np.append(firsts, len(label_of_row)), how)

    @property
    def labels(self) -> int:
        """N, the number of labels."""
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> Int64:
        """(N,) number of names of each label."""
        return np.diff(self.starts)

    @cached_property
    def most(self) -> int:
        """Largest number of names of one label."""
        return int(self.counts.max(initial=1))

    def edges(self, first: int, last: int, rows: int) -> list[int]:
        """Return the edges that cut labels ``first`` to ``last``, both included, into parts.

        A part has at most ``rows`` rows, or is a single label.
        """
        edges = [first]
        while edges[-1] < last:
            end = self.starts[edges[-1]] + rows
            label = int(np.searchsorted(self.starts, end, side="right")) - 1
            edges.append(min(max(label, edges[-1] + 1), last))
        return edges

    def rows_of(self, labels: Int64) -> Int64:
        """Return the rows of (n,) labels, one label after the other."""
        counts = self.counts[labels]
        ends = np.cumsum(counts)
        within = np.arange(int(ends[-1]) if len(ends) else 0)
        return np.repeat(self.starts[labels] - ends + counts, counts) + within

    def take(self, labels: Int64) -> Pooling:
        """Return the pooling of (n,) labels alone, for the rows that ``rows_of`` gives."""
        return Pooling(np.append(0, np.cumsum(self.counts[labels])), self.how)

    def followed_by(self, labels: int) -> Pooling:
        """Return the same with ``labels`` more labels of one row each."""
        more = self.starts[-1] + 1 + np.arange(labels)
        return Pooling(np.append(self.starts, more), self.how)

    def pool(self, logits: Logits, first: int = 0, last: int | None = None) -> Logits:
        """Return the (B, n) logits of labels ``first`` to ``last`` from the (B, r) of their rows.

        A logit bias may be added before or after. Where each label has one row, the same array is
        returned.
        """
        last = self.labels if last is None else last
        counts = self.counts[first:last]
        if counts.max(initial=1) == 1:
            return logits
        # Pool the second names of all labels that have one, then the third, and so on. Sorted by
        # the number of names these labels are a slice; ``reduceat`` takes three times as long.
        by_count = np.argsort(-counts, kind="stable")
        firsts = (self.starts[first:last] - self.starts[first])[by_count]
        number = np.searchsorted(-counts[by_count], -np.arange(1, counts.max()))
        logits = np.ascontiguousarray(logits)
        pooled: Logits = np.take(logits, firsts, axis=1)
        top = pooled[:, : number[0]]
        for place, labels in enumerate(number.tolist(), 1):
            other = np.take(logits, firsts[:labels] + place, axis=1)
            np.maximum(top[:, :labels], other, out=top[:, :labels])
        if self.how == "mass":
            total = np.exp(np.take(logits, firsts[: number[0]], axis=1) - top)
            for place, labels in enumerate(number.tolist(), 1):
                other = np.take(logits, firsts[:labels] + place, axis=1)
                total[:, :labels] += np.exp(other - top[:, :labels])
            top += np.log(total)
        back: Logits = np.take(pooled, np.argsort(by_count), axis=1)
        return back

    def similarities(self, similarities: Float64, scale: float) -> Float64:
        """Return the (B, N) similarities of labels from the (B, R) of their rows.

        Multiplied by the scale they are the labels' logits without bias. Under ``mass`` they
        therefore depend on the scale, and can be above 1.
        """
        if self.how == "max":
            return self.pool(similarities)
        return self.pool(similarities * scale) / scale

    def rounding(self, scale: float) -> float:
        """Return a bound of the rounding error of pooling in float32, for similarities up to 1."""
        if self.how == "max":
            return 0.0
        # A sum of exponentials up to 1, its logarithm, and the largest logit on top of that.
        return 2.0**-24 + (self.most + 4) * 2.0**-23 / scale
