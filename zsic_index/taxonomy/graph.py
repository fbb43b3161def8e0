"""Directed acyclic graphs as arrays: lists of lists, levels, reachability and distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Bool, Int64


@dataclass(frozen=True, slots=True, eq=False)
class IntLists:
    """L immutable lists of integers in two arrays, such as the parents of each node.

    The arrays are those of a compressed sparse row (CSR) matrix without its values.

    Attributes:
        indptr: (L + 1,) int64; list i is ``indices[indptr[i]:indptr[i + 1]]``.
        indices: int64, the integers of all lists, one list after the other.
    """

    indptr: Int64
    indices: Int64

    def __post_init__(self) -> None:
        self.indptr.setflags(write=False)
        self.indices.setflags(write=False)

    @classmethod
    def empty(cls, size: int) -> IntLists:
        """Return ``size`` empty lists."""
        return cls(np.zeros(size + 1, dtype=np.int64), np.empty(0, dtype=np.int64))

    @classmethod
    def from_counts(cls, counts: Int64, indices: Int64) -> IntLists:
        """Return L lists of lengths ``counts`` (L,), one after the other in ``indices``."""
        indptr = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=indptr[1:])
        return cls(indptr, indices)

    @classmethod
    def from_pairs(cls, owners: Int64, values: Int64, size: int) -> IntLists:
        """Return ``size`` lists: ``values[i]`` goes to list ``owners[i]``, in the given order."""
        order = np.argsort(owners, kind="stable")
        return cls.from_counts(np.bincount(owners, minlength=size).astype(np.int64), values[order])

    @property
    def counts(self) -> Int64:
        """Lengths of the lists, (L,)."""
        return np.diff(self.indptr)

    @property
    def owners(self) -> Int64:
        """Number of the list that each of ``indices`` is in."""
        return np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int64), self.counts)

    def of(self, number: int) -> Int64:
        """Return one list."""
        return self.indices[self.indptr[number] : self.indptr[number + 1]]

    def gather(self, numbers: Int64) -> Int64:
        """Return several lists, joined in the order of ``numbers``."""
        starts = self.indptr[numbers]
        counts = self.indptr[numbers + 1] - starts
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        return self.indices[np.repeat(starts - ends + counts, counts) + np.arange(total)]

    def transposed(self, size: int) -> IntLists:
        """Return ``size`` lists: list j has the numbers of the lists that contain j, ascending."""
        return IntLists.from_pairs(self.indices, self.owners, size)


def compute_levels(parents: IntLists, children: IntLists) -> Int64:
    """Return each node's level: 0 without parents, else one more than its deepest parent's.

    Returns:
        (M,) int64; -1 for the nodes of a cycle and all nodes below one.
    """
    level = np.full(len(parents.indptr) - 1, -1, dtype=np.int64)
    open_parents = parents.counts
    front = np.flatnonzero(open_parents == 0)
    depth = 0
    while len(front):
        level[front] = depth
        below = children.gather(front)
        np.subtract.at(open_parents, below, 1)
        front = np.unique(below[open_parents[below] == 0])
        depth += 1
    return level


def split_by_level(level: Int64) -> list[Int64]:
    """Return the nodes of each level, from level 0 on, each in ascending order."""
    order = np.argsort(level, kind="stable")
    return np.split(order, np.cumsum(np.bincount(level))[:-1]) if len(level) else []


def find_reachable(links: IntLists, start: Int64) -> Bool:
    """Return a mask over all nodes: ``start`` and every node that ``links`` lead to from there."""
    seen = np.zeros(len(links.indptr) - 1, dtype=np.bool_)
    front = start
    while len(front):
        seen[front] = True
        linked = links.gather(front)
        front = np.unique(linked[~seen[linked]])
    return seen


def compute_distances(links: IntLists, start: Int64) -> Int64:
    """Return the number of steps from the nearest of ``start`` to each node; -1 out of reach."""
    steps = np.full(len(links.indptr) - 1, -1, dtype=np.int64)
    front, step = start, 0
    while len(front):
        steps[front] = step
        linked = links.gather(front)
        front = np.unique(linked[steps[linked] < 0])
        step += 1
    return steps


def find_cycle(parents: IntLists, level: Int64) -> Sequence[int]:
    """Return a cycle, from a node up to itself, where ``compute_levels`` left some at -1."""
    # Each node at -1 has a parent at -1, so a walk up through them comes to some node twice.
    node = int(np.flatnonzero(level < 0)[0])
    seen: dict[int, int] = {}
    walk: list[int] = []
    while node not in seen:
        seen[node] = len(walk)
        walk.append(node)
        node = next(int(parent) for parent in parents.of(node) if level[parent] < 0)
    return [*walk[seen[node] :], node]
