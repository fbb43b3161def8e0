"""Labels with several rows: one for each of their names, and what a label has of them.

A scan walks rows, and all that comes after it knows labels alone. Between the two stands a
``Pooling``: the rows of a label lie together, and their logits become the label's. Arrays only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64

How = Literal["max", "mass"]
"""What a label has of its names: the largest logit, or the logarithm of all their exponentials
together, so that its softmax probability is the sum of theirs."""

Logits = TypeVar("Logits", Float32, Float64)


@dataclass(frozen=True, eq=False)
class Pooling:
    """Which of R rows are names of which of N labels, and how a label's logit comes of theirs.

    Attributes:
        starts: (N + 1,) int64, ascending: the first row of each label, then R. No label is without
            a row.
        how: ``max`` or ``mass``.
    """

    starts: Int64
    how: How

    @classmethod
    def of_rows(cls, label_of_row: Int64, how: How) -> Pooling:
        """Return that of (R,) numbers of labels, those of one label next to each other."""
        firsts = np.flatnonzero(np.diff(label_of_row, prepend=label_of_row[:1] - 1))
        return cls(np.append(firsts, len(label_of_row)), how)

    @property
    def labels(self) -> int:
        """N."""
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> Int64:
        """(N,) names of each label."""
        return np.diff(self.starts)

    @cached_property
    def most(self) -> int:
        """The most names that a label has."""
        return int(self.counts.max(initial=1))

    def edges(self, first: int, last: int, rows: int) -> list[int]:
        """Return where to cut labels ``first`` to ``last``, both included, into parts.

        A part has at most so many rows, or is a single label.
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
        """Return that of (n,) labels alone, for the rows that ``rows_of`` gives."""
        return Pooling(np.append(0, np.cumsum(self.counts[labels])), self.how)

    def followed_by(self, labels: int) -> Pooling:
        """Return the same with so many more labels of one row each."""
        more = self.starts[-1] + 1 + np.arange(labels)
        return Pooling(np.append(self.starts, more), self.how)

    def pool(self, logits: Logits, first: int = 0, last: int | None = None) -> Logits:
        """Return the (B, n) logits of labels ``first`` to ``last`` from the (B, r) of their rows.

        The bias of a model can be added before or after. Where each label has one row, these are
        the very logits that were given.
        """
        last = self.labels if last is None else last
        counts = self.counts[first:last]
        if counts.max(initial=1) == 1:
            return logits
        # Name by name, for all labels that have one more: few have many. Those with most stand in
        # front, so that these labels are a slice; ``reduceat`` takes three times as long.
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

        Times the scale they are the labels' logits without bias. Under ``mass`` they therefore
        depend on it, and can be above 1.
        """
        if self.how == "max":
            return self.pool(similarities)
        return self.pool(similarities * scale) / scale

    def rounding(self, scale: float) -> float:
        """Return what pooling in float32 can be off by, of a similarity up to 1."""
        if self.how == "max":
            return 0.0
        # A sum of exponentials up to 1, its logarithm, and the largest logit on top of that.
        return 2.0**-24 + (self.most + 4) * 2.0**-23 / scale
