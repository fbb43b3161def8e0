"""Probabilities of nodes from those of the labels below them, each label counted once.

There are two ways with the same three reductions. ``LabelGroups`` serve a scan, which never holds
the probabilities of all labels at once: labels below the same selected nodes form a group, and the
scan keeps one number per group. ``RollUp`` takes the probabilities of all labels and returns those
of all nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zsic_index.embedding_arrays import Float64, Int64
from zsic_index.errors import LabelError
from zsic_index.taxonomy.graph import IntLists, compute_levels, split_by_level
from zsic_index.taxonomy.structure import Structure


class _NodeReducer(ABC):
    """Base of the two ways from K values (labels or groups) to values of nodes."""

    def _reduce(self, values: Float64, ufunc: np.ufunc) -> Float64:
        """Return (B, nodes): ``ufunc`` over the (B, K) values below each node, each value once."""
        reduced = np.zeros((len(values), self._width))
        # One query at a time, so that its values stay in the cache.
        for query_reduced, query_values in zip(reduced, values, strict=True):
            self._reduce_query(query_reduced, query_values, ufunc)
        return reduced

    @property
    @abstractmethod
    def _width(self) -> int:
        """Number of nodes."""

    @abstractmethod
    def _reduce_query(self, reduced: Float64, values: Float64, ufunc: np.ufunc) -> None:
        """Fill ``reduced``, (nodes,) zeros, from the (K,) values of one query."""

    def node_mass(self, mass: Float64) -> Float64:
        """Return sums, (B, nodes) float64: probabilities under softmax.

        Args:
            mass: (B, K) float64; a column per label (``RollUp``) or per group (``LabelGroups``).
        """
        return self._reduce(mass, np.add)

    def node_max(self, probabilities: Float64) -> Float64:
        """Return maxima, (B, nodes) float64: probabilities under sigmoid, for overlapping labels.

        Args:
            probabilities: (B, K) float64; for a group, the maximum over its labels.
        """
        return self._reduce(probabilities, np.maximum)

    def node_noisy_or(self, probabilities: Float64) -> Float64:
        """Return 1 - prod(1 - p), (B, nodes): under sigmoid, for independent labels.

        Args:
            probabilities: (B, K) float64; for a group, 1 - prod(1 - p) over its labels.
        """
        with np.errstate(divide="ignore"):  # a probability of 1 gives -inf here and 1 at the end
            logs = np.log1p(-np.asarray(probabilities, dtype=np.float64))
        return 0.0 - np.expm1(self._reduce(logs, np.add))


@dataclass(frozen=True, eq=False)
class LabelGroups(_NodeReducer):
    """Partition of the labels: a group shares its set of ancestors among S selected nodes.

    A label that is itself a selected node counts as below it.

    Attributes:
        nodes: (S,) int64, the selected nodes in ascending order.
        group_of: (N,) int64, group of each label.
        members: for each of G groups, the positions in ``nodes`` of the nodes above its labels; no
            two groups have the same. The last group has none: it takes the labels outside of all
            selected nodes, so that the masses of all groups add up to 1.
    """

    nodes: Int64
    group_of: Int64
    members: IntLists

    @property
    def outside(self) -> int:
        """Group of the labels below no selected node: G - 1."""
        return len(self.members.indptr) - 2

    def group_mass(self, mass: Float64) -> Float64:
        """Return the (B, G) masses of the groups from the (B, N) masses of all labels."""
        size = self.outside + 1
        return np.array(
            [np.bincount(self.group_of, weights=row, minlength=size) for row in mass]
        ).reshape(-1, size)

    @cached_property
    def _groups_below(self) -> _SegmentReduction:
        size = len(self.nodes)
        return _SegmentReduction.of(np.arange(size), self.members.transposed(size))

    @property
    def _width(self) -> int:
        return len(self.nodes)

    def _reduce_query(self, reduced: Float64, values: Float64, ufunc: np.ufunc) -> None:
        self._groups_below.reduce_into(reduced, values, ufunc)


def group_labels_at(structure: Structure, rank: str) -> LabelGroups:
    """Group labels by their ancestors (or themselves) at a rank.

    A label below two nodes of the rank counts once in each of them.

    Args:
        structure: structure of the taxonomy.
        rank: name of a rank, or ``depth 2``; see ``Structure.nodes_at``.

    Raises:
        LabelError: for an unknown rank.
    """
    return group_labels_below(structure, structure.nodes_at(rank))


def group_labels_below(structure: Structure, nodes: Int64) -> LabelGroups:
    """Group labels by the nodes among ``nodes``, (S,) ascending, that they are or are below.

    Groups below all nodes with children serve every rank at once: the other nodes are single
    labels.
    """
    selected = np.full(len(structure.label_of), -1, dtype=np.int64)
    selected[nodes] = np.arange(len(nodes))
    parents = structure.parents
    parent_counts = parents.counts
    # Distinct sets of selected nodes, and for each node the number of the set that it is below.
    numbers: dict[tuple[int, ...], int] = {(): 0}
    sets: list[tuple[int, ...]] = [()]
    set_of = np.zeros(len(selected), dtype=np.int64)
    for level in structure.by_level:
        # Most nodes have one parent and take over its set, without a Python loop.
        heirs = level[(parent_counts[level] == 1) & (selected[level] < 0)]
        set_of[heirs] = set_of[parents.indices[parents.indptr[heirs]]]
        for node in level[(parent_counts[level] > 1) | (selected[level] >= 0)].tolist():
            inherited = {sets[number] for number in set_of[parents.of(node)].tolist()}
            if len(inherited) == 1:
                above = inherited.pop()
            else:
                above = tuple(sorted(set().union(*inherited)))
            if selected[node] >= 0:
                above = (*above, int(selected[node]))  # parents have smaller numbers: still sorted
            number = numbers.setdefault(above, len(sets))
            if number == len(sets):
                sets.append(above)
            set_of[node] = number
    of_labels = set_of[structure.taxonomy.label_nodes]
    used = np.unique(of_labels[of_labels > 0])
    # Sorted by their nodes, so that in a tree a group's number is the position of its node.
    by_nodes = sorted(used.tolist(), key=sets.__getitem__)
    group_of_set = np.full(len(sets), len(by_nodes), dtype=np.int64)
    group_of_set[by_nodes] = np.arange(len(by_nodes))
    members = [sets[number] for number in by_nodes]
    return LabelGroups(
        nodes=nodes,
        group_of=group_of_set[of_labels],
        members=IntLists.from_counts(
            np.array([*map(len, members), 0], dtype=np.int64),
            np.array([node for group in members for node in group], dtype=np.int64),
        ),
    )


class RollUp(_NodeReducer):
    """Reduction of the probabilities of all N labels to those of all M nodes.

    The graph is cut above the nodes with several parents ("joints"), which leaves trees. Within a
    tree, values are reduced level by level, from the leaves up. A label reaches a node outside of
    its tree only through the tree's root, so a second step adds to each node all joints below it,
    each once, however many ways lead there.
    """

    def __init__(self, structure: Structure) -> None:
        self._label_nodes = structure.taxonomy.label_nodes
        parents = structure.parents
        self._size = len(parents.indptr) - 1
        single = parents.counts == 1
        tree = IntLists.from_counts(
            single.astype(np.int64), parents.indices[parents.indptr[:-1][single]]
        )
        below = tree.transposed(self._size)
        child_counts = below.counts
        self._levels = [
            _SegmentReduction.of(
                nodes, IntLists.from_counts(child_counts[nodes], below.gather(nodes))
            )
            for nodes in reversed(split_by_level(compute_levels(tree, below)))
        ]
        joints = np.flatnonzero(parents.counts > 1)
        above = _collect_ancestors(parents, joints)
        self._joints = _SegmentReduction.of(
            np.arange(self._size),
            IntLists.from_pairs(above.indices, joints[above.owners], self._size),
        )

    @property
    def _width(self) -> int:
        return self._size

    def _reduce_query(self, reduced: Float64, values: Float64, ufunc: np.ufunc) -> None:
        reduced[self._label_nodes] = values
        for level in self._levels:
            level.reduce_into(reduced, reduced, ufunc)
        self._joints.reduce_into(reduced, reduced, ufunc)


@dataclass(frozen=True, slots=True, eq=False)
class _SegmentReduction:
    """Reduction of segments of a value array, one segment per node.

    Attributes:
        nodes: nodes with a segment that is not empty.
        starts: start of each node's segment in ``below``; it ends at the next start.
        below: positions in the array of values, segment after segment.
    """

    nodes: Int64
    starts: Int64
    below: Int64

    @classmethod
    def of(cls, nodes: Int64, below: IntLists) -> _SegmentReduction:
        """Return the reduction for ``nodes``; ``below`` has the positions for each of them."""
        # Empty segments are left out: for them reduceat returns the value at their start.
        filled = below.counts > 0
        return cls(nodes[filled], below.indptr[:-1][filled], below.indices)

    def reduce_into(self, reduced: Float64, values: Float64, ufunc: np.ufunc) -> None:
        """Combine each node's entry of ``reduced`` with ``ufunc`` over the values below it."""
        if len(self.nodes):
            below = ufunc.reduceat(values[self.below], self.starts)
            reduced[self.nodes] = ufunc(reduced[self.nodes], below)


def _collect_ancestors(parents: IntLists, nodes: Int64) -> IntLists:
    """Return all ancestors of each of ``nodes``, which are in ascending order."""
    above: dict[int, set[int]] = {}
    for node in nodes.tolist():
        ancestors: set[int] = set()
        waiting = parents.of(node).tolist()
        while waiting:
            parent = waiting.pop()
            if parent not in ancestors:
                ancestors.add(parent)
                if parent in above:
                    ancestors |= above[parent]
                else:
                    waiting.extend(parents.of(parent).tolist())
        above[node] = ancestors
    return IntLists.from_counts(
        np.array([len(ancestors) for ancestors in above.values()], dtype=np.int64),
        np.array([parent for ancestors in above.values() for parent in ancestors], dtype=np.int64),
    )


def find_deepest(
    structure: Structure,
    probabilities: Float64,
    floor: float,
    by_rank: Mapping[str, float] | None = None,
) -> int | None:
    """Return the deepest node that reaches its floor, as do all nodes on some path up from it.

    Args:
        structure: structure of the taxonomy.
        probabilities: (M,) float64, probabilities of all nodes for one image.
        floor: minimum probability of a node.
        by_rank: rank → another minimum for its nodes.

    Returns:
        The node; among equally deep ones the most probable, among those the first. None when no
        node without parents reaches its floor.

    Raises:
        LabelError: for an unknown rank, or another number of probabilities.
    """
    if probabilities.shape != (len(structure.label_of),):
        raise LabelError(
            f"probabilities have shape {probabilities.shape}; "
            f"give one for each of {len(structure.label_of)} nodes"
        )
    floors = np.full(probabilities.shape, floor)
    for rank, rank_floor in (by_rank or {}).items():
        floors[structure.nodes_at(rank)] = rank_floor
    reached = probabilities >= floors
    parents = structure.parents
    counts = parents.counts
    for level in structure.by_level[1:]:
        nodes = level[reached[level]]
        if len(nodes):
            starts = np.cumsum(counts[nodes]) - counts[nodes]
            reached[nodes] = np.logical_or.reduceat(reached[parents.gather(nodes)], starts)
    candidates = np.flatnonzero(reached)
    if not len(candidates):
        return None
    order = np.lexsort((-candidates, probabilities[candidates], structure.depths[candidates]))
    return int(candidates[order[-1]])
