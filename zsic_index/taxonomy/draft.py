"""From what readers find, entry by entry, to a checked taxonomy."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NoReturn, TypeVar

import numpy as np

from zsic_index import prompts
from zsic_index.embedding_arrays import Int64
from zsic_index.errors import LabelError, TemplateError
from zsic_index.taxonomy import graph, ranks
from zsic_index.taxonomy.entries import NOTHING, Details
from zsic_index.taxonomy.graph import Csr
from zsic_index.taxonomy.model import Taxonomy
from zsic_index.taxonomy.names import folded, nearest

MAX_LABEL_LENGTH = 2_000

ROOT = -1
"""Stands where the number of a parent would, for a node that has none."""

T = TypeVar("T")


class Draft:
    """A taxonomy while it is read. Nodes are numbered as they come.

    Args:
        source: what to call the input in messages.
        unit: what its numbers count: lines or entries.
    """

    def __init__(self, source: str, unit: str) -> None:
        self._source = source
        self._unit = unit
        self._names: list[str] = []
        self._keys: list[str] = []
        self._numbers = array("q")
        self._within = array("q")
        self._nodes: dict[str, int] = {}  # by key
        self._with_id: set[int] = set()
        self._labels: dict[int, None] = {}
        self._duplicates: dict[str, None] = {}
        self._parents: dict[int, tuple[str, ...]] = {}
        self._ranks: dict[int, str] = {}
        self._aliases: dict[int, tuple[str, ...]] = {}
        self._languages: dict[str, dict[int, str]] = {}
        self._templates: dict[int, tuple[str, ...]] = {}
        self._prompts: dict[int, tuple[str, ...]] = {}

    def place(self, number: int) -> str:
        """Return how messages name an entry."""
        return f"{self._source}: {self._unit} {number}"

    def fail(self, number: int, message: str) -> NoReturn:
        """Raise a LabelError that names an entry."""
        raise LabelError(f"{self.place(number)}: {message}")

    def label(
        self,
        number: int,
        name: object,
        details: Details = NOTHING,
        *,
        key: str = "",
        id: str = "",
        within: int = ROOT,
    ) -> int:
        """Take in an entry that is a label, and return its node.

        Args:
            number: its line or entry.
            name: what it is called.
            details: all else that it says.
            key: what it is known by when it has no id; empty: by its name. A branch of this key
                becomes the label.
            id: its id; empty when it has none.
            within: the node that it stands below in the file.

        Raises:
            LabelError: for a name that cannot be one, or a key that came before and meant
                something else.
        """
        name = self._checked(number, name)
        if id:
            self._identify(key, id)
        node = self._node(number, name, key, id, within)
        if node in self._labels:
            self._check_repeat(number, node, name, within, details)
            self._duplicates[name] = None
        else:
            self._labels[node] = None
            if details is not NOTHING:
                self._describe(number, node, details)
        return node

    def branch(self, number: int, name: object, rank: str, *, key: str, within: int) -> int:
        """Take in a node that is no label, or not yet, and return it; ``key`` must be new."""
        node = self._node(number, self._checked(number, name), key, "", within)
        self._ranks[node] = rank
        return node

    def _checked(self, number: int, name: object, what: str = "label") -> str:
        if not isinstance(name, str):
            self.fail(number, f"{name!r} is not a string; {what}s are strings")
        name = name.strip()
        if not name:
            self.fail(number, f"the {what} is empty")
        if len(name) > MAX_LABEL_LENGTH:
            self.fail(
                number,
                f"the {what} {name[:40]!r}... has {len(name)} characters; "
                f"the limit is {MAX_LABEL_LENGTH}",
            )
        if "\0" in name:
            self.fail(number, f"the {what} {name!r} holds a NUL character: remove it")
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                self.fail(
                    number,
                    f"the {what} {name!r} holds half of a surrogate pair: mend the file's encoding",
                )
        return name

    def _node(self, number: int, name: str, key: str, id: str, within: int) -> int:
        new = len(self._names)
        node = self._nodes.setdefault(id or key or name, new)
        if node == new:
            self._names.append(name)
            self._keys.append(id or key or name)
            self._numbers.append(number)
            self._within.append(within)
            if id:
                self._with_id.add(node)
        return node

    def _identify(self, key: str, id: str) -> None:
        """Give a branch its id, if ``key`` is one's and the id is new."""
        branch = self._nodes.get(key)
        if branch is not None and branch not in self._labels and id not in self._nodes:
            del self._nodes[key]
            self._nodes[id] = branch
            self._keys[branch] = id
            self._with_id.add(branch)

    def _check_repeat(
        self, number: int, node: int, name: str, within: int, details: Details
    ) -> None:
        first = f"{self._unit} {self._numbers[node]}"
        if self._names[node] != name:
            self.fail(
                number,
                f"{name!r} has the id or path of {self._names[node]!r} ({first}): give each an id "
                "of its own",
            )
        if self._within[node] != within or self._parents.get(node, ()) != details.parents:
            self.fail(
                number,
                f"{name!r} has other parents here than on {first}: name them all there, "
                "or give each its own id",
            )

    def _describe(self, number: int, node: int, details: Details) -> None:
        if details.parents:
            self._parents[node] = details.parents
        if details.rank:
            self._ranks[node] = details.rank.casefold()
        if details.aliases:
            given = (self._checked(number, alias, "alias") for alias in details.aliases)
            if aliases := tuple(dict.fromkeys(a for a in given if a != self._names[node])):
                self._aliases[node] = aliases
        for language, name in details.languages.items():
            self._languages.setdefault(language, {})[node] = self._checked(number, name, "name")
        if details.templates:
            try:
                self._templates[node] = _resolved(details.templates)
            except TemplateError as error:
                raise TemplateError(f"{self.place(number)}: {error}") from None
        if details.prompts:
            self._prompts[node] = tuple(
                dict.fromkeys(self._checked(number, text, "prompt") for text in details.prompts)
            )

    def finish(self, *, leaves_only: bool = False) -> Taxonomy:
        """Resolve parents, put nodes in order, and return the taxonomy.

        Args:
            leaves_only: take only nodes without children as labels.

        Raises:
            LabelError: for no label at all, a parent that is not there or is not the only one of
                its name, or a cycle.
        """
        if not self._labels:
            raise LabelError(f"{self._source}: no labels in it; give at least one")
        parents = self._resolved_parents()
        level = self._levels(parents)
        label_nodes = np.fromiter(self._labels, dtype=np.int64, count=len(self._labels))
        if leaves_only:
            is_parent = np.zeros(len(self._names), dtype=np.bool_)
            is_parent[parents.indices] = True
            label_nodes = label_nodes[~is_parent[label_nodes]]
        labels = tuple(map(self._names.__getitem__, label_nodes.tolist()))
        rank_names, rank_of = self._ranked(level)
        order = _topological(parents, level)
        moved = np.empty(len(order), dtype=np.int64)
        moved[order] = np.arange(len(order))
        parents = Csr.from_counts(parents.counts[order], moved[parents.gather(order)])
        names = tuple(map(self._names.__getitem__, order.tolist()))
        keys = tuple(map(self._keys.__getitem__, order.tolist()))
        if names == labels:
            names = labels
        return Taxonomy(
            labels=labels,
            duplicates=tuple(self._duplicates),
            twins=_twins(labels),
            label_nodes=moved[label_nodes],
            names=names,
            keys=names if keys == names else keys,
            parents=parents,
            ranks=rank_names,
            rank_of=rank_of[order],
            aliases=_moved(self._aliases, moved),
            languages=MappingProxyType(
                {tag: _moved(names, moved) for tag, names in sorted(self._languages.items())}
            ),
            templates=_moved(self._templates, moved),
            prompts=_moved(self._prompts, moved),
        )

    def _resolved_parents(self) -> Csr:
        within = np.array(self._within, dtype=np.int64)
        children = np.flatnonzero(within != ROOT)
        if not self._parents:
            return Csr.from_pairs(children, within[children], len(within))
        names = _Names(self._names)
        pairs = [
            (node, parent)
            for node, written in self._parents.items()
            for parent in dict.fromkeys(self._parent(node, name, names) for name in written)
            if parent != within[node]
        ]
        named = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return Csr.from_pairs(
            np.concatenate([children, named[:, 0]]),
            np.concatenate([within[children], named[:, 1]]),
            len(within),
        )

    def _parent(self, child: int, written: str, names: _Names) -> int:
        by_id = self._nodes.get(written, ROOT)
        if by_id in self._with_id:
            return by_id
        number, name = self._numbers[child], self._names[child]
        found = names.first.get(written)
        if found is None:
            near = nearest(written, names.first)
            self.fail(
                number,
                f"the parent {written!r} of {name!r} has no {self._unit} of its own{near}: "
                "add one, or mend the name",
            )
        if (other := names.second.get(written)) is not None:
            self.fail(
                number,
                f"the parent {written!r} of {name!r} could be {self._unit} {self._numbers[found]} "
                f"or {self._unit} {self._numbers[other]}: name it by an id",
            )
        return found

    def _levels(self, parents: Csr) -> Int64:
        level = graph.levels(parents, parents.transposed(len(self._names)))
        if len(level) and level.min() < 0:
            cycle = graph.a_cycle(parents, level)
            path = " → ".join(self._names[node] for node in cycle)
            self.fail(
                self._numbers[cycle[0]],
                f"a label cannot be below itself: {path} goes from parent to parent in a cycle",
            )
        return level

    def _ranked(self, level: Int64) -> tuple[tuple[str, ...], Int64]:
        rank_of = np.full(len(self._names), -1, dtype=np.int64)
        if not self._ranks:
            return (), rank_of
        position = {rank: number for number, rank in enumerate(dict.fromkeys(self._ranks.values()))}
        nodes = np.fromiter(self._ranks, dtype=np.int64, count=len(self._ranks))
        codes = np.array([position[rank] for rank in self._ranks.values()], dtype=np.int64)
        means = np.bincount(codes, weights=level[nodes]) / np.bincount(codes)
        names = ranks.ordered(dict(zip(position, means.tolist(), strict=True)))
        rank_of[nodes] = np.array([names.index(rank) for rank in position], dtype=np.int64)[codes]
        return names, rank_of


class _Names:
    """Which node has a name, and which is the second to have it."""

    def __init__(self, names: list[str]) -> None:
        self.first: dict[str, int] = {}
        self.second: dict[str, int] = {}
        for node, name in enumerate(names):
            if self.first.setdefault(name, node) != node:
                self.second.setdefault(name, node)


@lru_cache(maxsize=1024)  # whole subtrees of rows say the same
def _resolved(templates: tuple[str, ...]) -> tuple[str, ...]:
    return prompts.resolve(templates)


def _topological(parents: Csr, level: Int64) -> Int64:
    """Return nodes with parents before children: as they came, if they came that way."""
    if np.all(parents.indices < parents.rows):
        return np.arange(len(level), dtype=np.int64)
    return np.argsort(level, kind="stable")


def _moved(values: Mapping[int, T], moved: Int64) -> Mapping[int, T]:
    return MappingProxyType(dict(sorted((int(moved[node]), v) for node, v in values.items())))


def _twins(labels: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    firsts: dict[str, str] = {}
    twins: list[tuple[str, str]] = []
    for name in labels:
        first = firsts.setdefault(folded(name), name)
        if first != name:
            twins.append((first, name))
    return tuple(twins)
