"""Per-group reductions (sum, max, noisy-or) accumulated during a scan. Arrays only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64

Reduction = Literal["sum", "max", "noisy-or"]
"""Reduction of a group's labels to one probability: under softmax their sum; under sigmoid the
largest, or that of at least one of them where they are independent."""


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Groups of rows, each of which a scan reduces to one number.

    Attributes:
        group_of: (N,) int64 group of each row; fast where rows of a group are adjacent.
        count: G, the number of groups.
        reduction: reduction over the rows of a group.
    """

    group_of: Int64
    count: int
    reduction: Reduction

    def settle(self, probabilities: Float64, rows: Int64, rough: Float64, exact: Float64) -> None:
        """Replace the terms of a query's best rows in its (G,) probabilities, in place.

        Args:
            probabilities: probability of each group.
            rows: (n,) int64 rows: all that are better than a given one.
            rough: (n,) float64 logits that they were reduced with; under ``sum`` these are without
                logit bias, relative to the logsumexp of all rows.
            exact: (n,) float64 exact logits of the same kind.
        """
        groups, place = np.unique(self.group_of[rows], return_inverse=True)
        match self.reduction:
            case "sum":
                more = np.bincount(place, np.exp(exact) - np.exp(rough))
                probabilities[groups] = np.maximum(probabilities[groups] + more, 0.0)
                probabilities /= probabilities.sum()
            case "max":
                # The best row of each of these groups is among them.
                best = np.full(len(groups), -np.inf)
                np.maximum.at(best, place, exact)
                probabilities[groups] = np.exp(-np.logaddexp(0.0, -best))
            case "noisy-or":
                off = np.bincount(place, np.logaddexp(0.0, exact) - np.logaddexp(0.0, rough))
                with np.errstate(divide="ignore"):
                    off -= np.log1p(-probabilities[groups])
                probabilities[groups] = -np.expm1(-off)


class GroupValues(ABC):
    """Running reduction for each query and group over the rows that one worker scans."""

    takes_exponentials = False
    """True when ``add`` takes exponentials, shifted by a logit of each query, instead of logits."""

    def __init__(self, batch: int, grouping: Grouping, bias: float, empty: float) -> None:
        self._group_of = grouping.group_of
        self._bias = bias
        self.values = np.full((batch, grouping.count), empty)

    @staticmethod
    def of(batch: int, grouping: Grouping, bias: float) -> GroupValues:
        """Return an empty reduction."""
        match grouping.reduction:
            case "sum":
                return _SumValues(batch, grouping, bias, 0.0)
            case "max":
                return _MaxValues(batch, grouping, bias, -np.inf)
            case "noisy-or":
                return _NoisyOrValues(batch, grouping, bias, 0.0)

    @abstractmethod
    def add(self, block: Float32, first: int, relative_to: Float32 | None = None) -> None:
        """Add a (B, n) block that begins at row ``first``."""

    @abstractmethod
    def join(self, other: GroupValues) -> None:
        """Add the values of another worker."""

    @abstractmethod
    def probabilities(self) -> Float64:
        """Return (B, G) probabilities."""

    @staticmethod
    def merged(workers: Sequence[GroupValues]) -> Float64 | None:
        """Return the (B, G) probabilities over the rows of all workers; None without workers."""
        if not workers:
            return None
        first, *others = workers
        for other in others:
            first.join(other)
        return first.probabilities()

    def _reduce(self, ufunc: np.ufunc, block: Float32, first: int) -> tuple[Int64, Float64]:
        """Return the group of each run of rows in a block, and its (B, runs) float64 reduction."""
        groups = self._group_of[first : first + block.shape[1]]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        return groups[starts], ufunc.reduceat(block, starts, axis=1, dtype=np.float64)

    def _apply(self, ufunc: np.ufunc, groups: Int64, values: Float64) -> None:
        if len(groups) == 1 or (np.diff(groups) > 0).all():
            self.values[:, groups] = ufunc(self.values[:, groups], values)
        else:
            # Some group has several runs.
            ufunc.at(self.values.T, groups, values.T)


class _SumValues(GroupValues):
    takes_exponentials = True

    def __init__(self, batch: int, grouping: Grouping, bias: float, empty: float) -> None:
        super().__init__(batch, grouping, bias, empty)
        self._relative_to = np.full(batch, -np.inf)

    def add(self, block: Float32, first: int, relative_to: Float32 | None = None) -> None:
        assert relative_to is not None, "exponentials come with their shift"
        groups, sums = self._reduce(np.add, block, first)
        self._raise(relative_to)
        factor = np.exp(relative_to - self._relative_to)
        if (factor != 1).any():
            sums *= factor[:, None]
        self._apply(np.add, groups, sums)

    def join(self, other: GroupValues) -> None:
        assert isinstance(other, _SumValues)
        seen = np.isfinite(other._relative_to)
        self._raise(np.where(seen, other._relative_to, self._relative_to))
        other._raise(np.where(seen, self._relative_to, other._relative_to))
        self.values += other.values

    def probabilities(self) -> Float64:
        return np.asarray(self.values / self.values.sum(axis=1, keepdims=True))

    def _raise(self, relative_to: Float32 | Float64) -> None:
        risen = relative_to > self._relative_to
        if risen.any():
            with np.errstate(invalid="ignore"):
                down = np.exp(self._relative_to[risen] - relative_to[risen])
            self.values[risen] *= down[:, None]
            self._relative_to[risen] = relative_to[risen]


class _MaxValues(GroupValues):
    def add(self, block: Float32, first: int, relative_to: Float32 | None = None) -> None:
        self._apply(np.maximum, *self._reduce(np.maximum, block, first))

    def join(self, other: GroupValues) -> None:
        np.maximum(self.values, other.values, out=self.values)

    def probabilities(self) -> Float64:
        return np.asarray(np.exp(-np.logaddexp(0.0, -(self.values + self._bias))))


class _NoisyOrValues(GroupValues):
    def add(self, block: Float32, first: int, relative_to: Float32 | None = None) -> None:
        # log(1 - sigmoid(x)) = -log(1 + exp(x))
        off = np.logaddexp(np.float32(0), block + np.float32(self._bias))
        self._apply(np.add, *self._reduce(np.add, off, first))

    def join(self, other: GroupValues) -> None:
        self.values += other.values

    def probabilities(self) -> Float64:
        return np.asarray(-np.expm1(-self.values))
