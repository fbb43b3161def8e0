"""From probabilities of labels to those of the nodes above them, each label counted once.

Two ways, with the same three answers. ``Groups`` are for a scan that never holds all labels'
probabilities at a time: labels that are below the same of the nodes asked about are one group, a
scan keeps one number for each group, and those are enough. ``RollUp`` takes the probabilities
of all labels and gives those of all nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zsic_index.embedding_arrays import Float64, Int64
from zsic_index.errors import LabelError
from zsic_index.taxonomy.graph import Csr, by_level, levels
from zsic_index.taxonomy.structure import Structure


class _Nodes(ABC):
    """Probabilities of nodes, from numbers for what is below them."""

    def _reduce(self, values: Float64, ufunc: np.ufunc) -> Float64:
        """Return (B, nodes) of (B, K): ``ufunc`` over what is below each node, each value once."""
        found = np.zeros((len(values), self._width))
        # Queries one by one: all that is picked from one row stays in the cache.
        for row, one in zip(found, values, strict=True):
            self._reduce_one(row, one, ufunc)
        return found

    @property
    @abstractmethod
    def _width(self) -> int:
        """How many nodes there are numbers for."""

    @abstractmethod
    def _reduce_one(self, found: Float64, values: Float64, ufunc: np.ufunc) -> None:
        """Fill (nodes,) zeros from the (K,) values of one query."""

    def node_mass(self, mass: Float64) -> Float64:
        """Return (B, nodes) sums in float64: probabilities under softmax.

        Args:
            mass: (B, K) float64; a column is a label (``RollUp``) or a group (``Groups``).
        """
        return self._reduce(mass, np.add)

    def node_max(self, probabilities: Float64) -> Float64:
        """Return (B, nodes) maxima: probabilities under sigmoid, for labels that overlap.

        Args:
            probabilities: (B, K) float64; of a group, the maximum over its labels.
        """
        return self._reduce(probabilities, np.maximum)

    def node_noisy_or(self, probabilities: Float64) -> Float64:
        """Return (B, nodes) of 1 - prod(1 - p): under sigmoid, for labels that are independent.

        Args:
            probabilities: (B, K) float64; of a group, the same over its labels.
        """
        with np.errstate(divide="ignore"):  # a probability of 1 is a logarithm of -inf, and comes
            logs = np.log1p(-np.asarray(probabilities, dtype=np.float64))  # out as 1 again
        return 0.0 - np.expm1(self._reduce(logs, np.add))


@dataclass(frozen=True, eq=False)
class Groups(_Nodes):
    """Labels by which of R nodes they are below, or are.

    Attributes:
        nodes: (R,) int64, the nodes asked about, in ascending order.
        group_of: (N,) int64, the group of each label.
        members: for each of G groups the positions in ``nodes`` of what its labels are below. No
            two groups have the same. The last group has none: labels below no such node are in
            it, so that all groups' masses add up to 1.
    """

    nodes: Int64
    group_of: Int64
    members: Csr

    @property
    def none(self) -> int:
        """The group of labels that are below none of the nodes: G - 1."""
        return len(self.members.indptr) - 2

    def group_mass(self, mass: Float64) -> Float64:
        """Return (B, G) sums of (B, N) masses, for those who have all labels' at hand."""
        size = self.none + 1
        return np.array(
            [np.bincount(self.group_of, weights=row, minlength=size) for row in mass]
        ).reshape(-1, size)

    @cached_property
    def _sums(self) -> _Sums:
        size = len(self.nodes)
        return _Sums.of(np.arange(size), self.members.transposed(size))

    @property
    def _width(self) -> int:
        return len(self.nodes)

    def _reduce_one(self, found: Float64, values: Float64, ufunc: np.ufunc) -> None:
        self._sums.reduce_into(found, values, ufunc)


def groups(structure: Structure, rank: str) -> Groups:
    """Return the groups of labels by their ancestors (or selves) at a rank.

    A label below two nodes of the rank counts in each of them, and in each once.

    Args:
        structure: of the taxonomy.
        rank: a rank's name, or ``depth 2``; see ``Structure.nodes_at``.

    Raises:
        LabelError: when there is no such rank.
    """
    return groups_below(structure, structure.nodes_at(rank))


def groups_below(structure: Structure, nodes: Int64) -> Groups:
    """Return the groups of labels by which of ``nodes`` (R,), ascending, they are below or are.

    With all nodes that have children this is enough for every rank at once: the nodes that are
    left are single labels.
    """
    wanted = np.full(len(structure.label_of), -1, dtype=np.int64)
    wanted[nodes] = np.arange(len(nodes))
    parents = structure.parents
    parent_counts = parents.counts
    # Sets of wanted nodes, each written once, and for each node which of them it is below or is.
    sets: dict[tuple[int, ...], int] = {(): 0}
    written: list[tuple[int, ...]] = [()]
    set_of = np.zeros(len(wanted), dtype=np.int64)
    for level in structure.by_level:
        # Most nodes have their only parent's set, and need no look one by one.
        heirs = level[(parent_counts[level] == 1) & (wanted[level] < 0)]
        set_of[heirs] = set_of[parents.indices[parents.indptr[heirs]]]
        for node in level[(parent_counts[level] > 1) | (wanted[level] >= 0)].tolist():
            above = {written[found] for found in set_of[parents.of(node)].tolist()}
            one = above.pop() if len(above) == 1 else tuple(sorted(set().union(*above)))
            if wanted[node] >= 0:
                one = (*one, int(wanted[node]))  # parents have smaller numbers: still sorted
            number = sets.setdefault(one, len(written))
            if number == len(written):
                written.append(one)
            set_of[node] = number
    of_labels = set_of[structure.taxonomy.label_nodes]
    used = np.unique(of_labels[of_labels > 0])
    # In the order of their nodes, so that in a tree a group's number is its node's position.
    by_nodes = sorted(used.tolist(), key=written.__getitem__)
    place = np.full(len(written), len(by_nodes), dtype=np.int64)
    place[by_nodes] = np.arange(len(by_nodes))
    members = [written[number] for number in by_nodes]
    return Groups(
        nodes=nodes,
        group_of=place[of_labels],
        members=Csr.from_counts(
            np.array([*map(len, members), 0], dtype=np.int64),
            np.array([node for one in members for node in one], dtype=np.int64),
        ),
    )


class RollUp(_Nodes):
    """Probabilities of all M nodes from those of all N labels.

    Nodes with one parent hang together in trees; nodes without parents or with several are their
    roots. Within a tree numbers go up level by level. A label reaches a node outside of its tree
    only through the tree's root, so all that such a node needs is each root that is below it, once,
    however many ways lead there.
    """

    def __init__(self, structure: Structure) -> None:
        self._label_nodes = structure.taxonomy.label_nodes
        parents = structure.parents
        self._size = len(parents.indptr) - 1
        single = parents.counts == 1
        tree = Csr.from_counts(
            single.astype(np.int64), parents.indices[parents.indptr[:-1][single]]
        )
        below = tree.transposed(self._size)
        child_counts = below.counts
        self._steps = [
            _Sums.of(nodes, Csr.from_counts(child_counts[nodes], below.gather(nodes)))
            for nodes in reversed(by_level(levels(tree, below)))
        ]
        joints = np.flatnonzero(parents.counts > 1)
        above = _above(parents, joints)
        self._joints = _Sums.of(
            np.arange(self._size),
            Csr.from_pairs(above.indices, joints[above.rows], self._size),
        )

    @property
    def _width(self) -> int:
        return self._size

    def _reduce_one(self, found: Float64, values: Float64, ufunc: np.ufunc) -> None:
        found[self._label_nodes] = values
        for step in self._steps:
            step.reduce_into(found, found, ufunc)
        self._joints.reduce_into(found, found, ufunc)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Nodes, and what is to be added to each.

    Attributes:
        nodes: nodes with something below them.
        starts: where in ``below`` each node's begins; it ends where the next one's does.
        below: positions in the array of values.
    """

    nodes: Int64
    starts: Int64
    below: Int64

    @classmethod
    def of(cls, nodes: Int64, below: Csr) -> _Sums:
        """Return those of ``nodes``, for each of which ``below`` has a list."""
        # Empty ones are left out: reduceat has another idea of them.
        filled = below.counts > 0
        return cls(nodes[filled], below.indptr[:-1][filled], below.indices)

    def reduce_into(self, found: Float64, values: Float64, ufunc: np.ufunc) -> None:
        """Put ``ufunc`` over what is below each node beside what ``found`` has for it."""
        if len(self.nodes):
            below = ufunc.reduceat(values[self.below], self.starts)
            found[self.nodes] = ufunc(found[self.nodes], below)


def _above(parents: Csr, nodes: Int64) -> Csr:
    """Return all that is above each of some nodes, given in ascending order."""
    above: dict[int, set[int]] = {}
    for node in nodes.tolist():
        found: set[int] = set()
        waiting = parents.of(node).tolist()
        while waiting:
            parent = waiting.pop()
            if parent not in found:
                found.add(parent)
                if parent in above:
                    found |= above[parent]
                else:
                    waiting.extend(parents.of(parent).tolist())
        above[node] = found
    return Csr.from_counts(
        np.array([len(found) for found in above.values()], dtype=np.int64),
        np.array([parent for found in above.values() for parent in found], dtype=np.int64),
    )


def deepest(
    structure: Structure,
    probabilities: Float64,
    floor: float,
    by_rank: Mapping[str, float] | None = None,
) -> int | None:
    """Return the deepest node that is probable enough, and on some way up all others are too.

    Args:
        structure: of the taxonomy.
        probabilities: (M,) of one image.
        floor: what a node's probability has to reach.
        by_rank: other floors, for nodes of some ranks.

    Returns:
        The node; of equally deep ones the most probable, and of those the first. None when none
        of the nodes without parents is probable enough.

    Raises:
        LabelError: for a rank that is not there, or another number of probabilities.
    """
    if probabilities.shape != (len(structure.label_of),):
        raise LabelError(
            f"probabilities have shape {probabilities.shape}; "
            f"give one for each of {len(structure.label_of)} nodes"
        )
    floors = np.full(probabilities.shape, floor)
    for rank, other in (by_rank or {}).items():
        floors[structure.nodes_at(rank)] = other
    clears = probabilities >= floors
    parents = structure.parents
    counts = parents.counts
    for level in structure.by_level[1:]:
        nodes = level[clears[level]]
        if len(nodes):
            starts = np.cumsum(counts[nodes]) - counts[nodes]
            clears[nodes] = np.logical_or.reduceat(clears[parents.gather(nodes)], starts)
    found = np.flatnonzero(clears)
    if not len(found):
        return None
    order = np.lexsort((-found, probabilities[found], structure.depths[found]))
    return int(found[order[-1]])
