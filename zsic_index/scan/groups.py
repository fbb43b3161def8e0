"""What a scan keeps for groups of rows: one number for each query and group. Arrays only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64

Reduction = Literal["sum", "max", "noisy-or"]
"""How the labels of a group become one number: their mass under softmax; under sigmoid the largest
probability, or the probability of at least one where they are independent."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows in groups, for which a scan keeps one number each.

    Attributes:
        group_of: (N,) int64, the group of each row; fast where those of a group lie together.
        count: G, the number of groups.
        reduction: what is kept.
    """

    group_of: Int64
    count: int
    reduction: Reduction


class GroupValues(ABC):
    """One number for each query and group, of the rows that one worker has seen."""

    takes_terms = False
    """Whether it is given exponentials, relative to a logit of each query, or logits."""

    def __init__(self, batch: int, grouping: Grouping, bias: float, empty: float) -> None:
        self._group_of = grouping.group_of
        self._bias = bias
        self.values = np.full((batch, grouping.count), empty)

    @staticmethod
    def of(batch: int, grouping: Grouping, bias: float) -> GroupValues:
        """Return an empty one for a reduction."""
        match grouping.reduction:
            case "sum":
                return _Sums(batch, grouping, bias, 0.0)
            case "max":
                return _Maxima(batch, grouping, bias, -np.inf)
            case "noisy-or":
                return _NoisyOr(batch, grouping, bias, 0.0)

    @abstractmethod
    def add(self, block: Float32, first: int, relative_to: Float32 | None = None) -> None:
        """Take in a (B, n) block that begins at row ``first``."""

    @abstractmethod
    def join(self, other: GroupValues) -> None:
        """Take in what another worker has."""

    @abstractmethod
    def probabilities(self) -> Float64:
        """Return (B, G) probabilities."""

    @staticmethod
    def merged(all_of_them: Sequence[GroupValues]) -> Float64 | None:
        """Return the (B, G) probabilities of what all workers have seen; None of no workers."""
        if not all_of_them:
            return None
        first, *others = all_of_them
        for other in others:
            first.join(other)
        return first.probabilities()

    def _reduce(self, ufunc: np.ufunc, block: Float32, first: int) -> tuple[Int64, Float64]:
        """Return the groups that come in a block, run by run, and (B, runs) float64."""
        groups = self._group_of[first : first + block.shape[1]]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        return groups[starts], ufunc.reduceat(block, starts, axis=1, dtype=np.float64)

    def _apply(self, ufunc: np.ufunc, groups: Int64, values: Float64) -> None:
        if len(groups) == 1 or (np.diff(groups) > 0).all():
            self.values[:, groups] = ufunc(self.values[:, groups], values)
        else:
            # A group comes in several runs.
            ufunc.at(self.values.T, groups, values.T)


class _Sums(GroupValues):
    takes_terms = True

    def __init__(self, batch: int, grouping: Grouping, bias: float, empty: float) -> None:
        super().__init__(batch, grouping, bias, empty)
        self._relative_to = np.full(batch, -np.inf)

    def add(self, block: Float32, first: int, relative_to: Float32 | None = None) -> None:
        assert relative_to is not None, "terms are relative to something"
        groups, sums = self._reduce(np.add, block, first)
        self._raise(relative_to)
        factor = np.exp(relative_to - self._relative_to)
        if (factor != 1).any():
            sums *= factor[:, None]
        self._apply(np.add, groups, sums)

    def join(self, other: GroupValues) -> None:
        assert isinstance(other, _Sums)
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


class _Maxima(GroupValues):
    def add(self, block: Float32, first: int, relative_to: Float32 | None = None) -> None:
        self._apply(np.maximum, *self._reduce(np.maximum, block, first))

    def join(self, other: GroupValues) -> None:
        np.maximum(self.values, other.values, out=self.values)

    def probabilities(self) -> Float64:
        return np.asarray(np.exp(-np.logaddexp(0.0, -(self.values + self._bias))))


class _NoisyOr(GroupValues):
    def add(self, block: Float32, first: int, relative_to: Float32 | None = None) -> None:
        # log(1 - sigmoid(x)) = -log(1 + exp(x))
        off = np.logaddexp(np.float32(0), block + np.float32(self._bias))
        self._apply(np.add, *self._reduce(np.add, off, first))

    def join(self, other: GroupValues) -> None:
        self.values += other.values

    def probabilities(self) -> Float64:
        return np.asarray(-np.expm1(-self.values))
