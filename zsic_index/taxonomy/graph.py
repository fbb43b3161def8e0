"""Lists of lists in two arrays, and walks over nodes that have several parents. Arrays only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Bool, Int64


@dataclass(frozen=True, slots=True, eq=False)
class Csr:
    """For each of R rows a list of numbers, as compressed sparse rows.

    Attributes:
        indptr: (R + 1,) int64; row r's numbers are ``indices[indptr[r]:indptr[r + 1]]``.
        indices: all rows' numbers, one row after the other; int64.
    """

    indptr: Int64
    indices: Int64

    def __post_init__(self) -> None:
        self.indptr.setflags(write=False)
        self.indices.setflags(write=False)

    @classmethod
    def empty(cls, rows: int) -> Csr:
        """Return ``rows`` empty lists."""
        return cls(np.zeros(rows + 1, dtype=np.int64), np.empty(0, dtype=np.int64))

    @classmethod
    def from_counts(cls, counts: Int64, indices: Int64) -> Csr:
        """Return lists of the (R,) lengths ``counts``, one after the other in ``indices``."""
        indptr = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=indptr[1:])
        return cls(indptr, indices)

    @classmethod
    def from_pairs(cls, rows: Int64, numbers: Int64, size: int) -> Csr:
        """Return ``size`` lists; each keeps its numbers in the order of the pairs."""
        order = np.argsort(rows, kind="stable")
        return cls.from_counts(np.bincount(rows, minlength=size).astype(np.int64), numbers[order])

    @property
    def counts(self) -> Int64:
        """(R,) lengths of the lists."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> Int64:
        """For each of ``indices``, the row that it is in."""
        return np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int64), self.counts)

    def of(self, row: int) -> Int64:
        """Return one row's numbers."""
        return self.indices[self.indptr[row] : self.indptr[row + 1]]

    def gather(self, rows: Int64) -> Int64:
        """Return the numbers of several rows, one row after the other."""
        starts = self.indptr[rows]
        counts = self.indptr[rows + 1] - starts
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        return self.indices[np.repeat(starts - ends + counts, counts) + np.arange(total)]

    def transposed(self, size: int) -> Csr:
        """Return, for each of ``size`` numbers, the rows that hold it, in ascending order."""
        return Csr.from_pairs(self.indices, self.rows, size)


def levels(parents: Csr, children: Csr) -> Int64:
    """Return each node's level: 0 without parents, else one more than its deepest parent's.

    Returns:
        (M,) int64; -1 for nodes of a cycle and all below one.
    """
    level = np.full(len(parents.indptr) - 1, -1, dtype=np.int64)
    waiting = parents.counts
    front = np.flatnonzero(waiting == 0)
    depth = 0
    while len(front):
        level[front] = depth
        below = children.gather(front)
        np.subtract.at(waiting, below, 1)
        front = np.unique(below[waiting[below] == 0])
        depth += 1
    return level


def by_level(level: Int64) -> list[Int64]:
    """Return the nodes of each level, from level 0 down, in ascending order."""
    order = np.argsort(level, kind="stable")
    return np.split(order, np.cumsum(np.bincount(level))[:-1]) if len(level) else []


def reachable(links: Csr, start: Int64) -> Bool:
    """Return a mask over all nodes: ``start`` and whatever ``links`` lead to from there."""
    seen = np.zeros(len(links.indptr) - 1, dtype=np.bool_)
    front = start
    while len(front):
        seen[front] = True
        found = links.gather(front)
        front = np.unique(found[~seen[found]])
    return seen


def distances(links: Csr, start: Int64) -> Int64:
    """Return how many steps each node is away from the nearest of ``start``; -1 out of reach."""
    steps = np.full(len(links.indptr) - 1, -1, dtype=np.int64)
    front, step = start, 0
    while len(front):
        steps[front] = step
        found = links.gather(front)
        front = np.unique(found[steps[found] < 0])
        step += 1
    return steps


def a_cycle(parents: Csr, level: Int64) -> Sequence[int]:
    """Return one cycle, from a node up to itself, where ``levels`` left some at -1."""
    # Each such node has a parent that is one as well: going up, one comes by a second time.
    node = int(np.flatnonzero(level < 0)[0])
    seen: dict[int, int] = {}
    walk: list[int] = []
    while node not in seen:
        seen[node] = len(walk)
        walk.append(node)
        node = next(int(parent) for parent in parents.of(node) if level[parent] < 0)
    return [*walk[seen[node] :], node]
