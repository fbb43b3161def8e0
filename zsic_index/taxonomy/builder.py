"""Builder that turns entries of a label file into a checked taxonomy."""

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
from zsic_index.taxonomy.entries import NO_DETAILS, EntryDetails
from zsic_index.taxonomy.graph import IntLists
from zsic_index.taxonomy.model import Taxonomy
from zsic_index.taxonomy.names import fold_name, suggest_names

MAX_LABEL_LENGTH = 2_000
"""Maximum number of characters of a name, alias or prompt."""

ROOT = -1
"""Parent of a node that has none."""

T = TypeVar("T")


class TaxonomyBuilder:
    """Builder of one taxonomy: readers add entries in file order, ``build`` checks them.

    Nodes are numbered in the order in which they are added. Parents are kept as written and are
    resolved in ``build``, because a file may name a parent before its own entry.

    Args:
        source: name of the input in messages.
        unit: ``line``, ``entry`` or ``label``: the unit that entries are numbered in.
    """

    def __init__(self, source: str, unit: str) -> None:
        self._source = source
        self._unit = unit
        self._names: list[str] = []
        self._keys: list[str] = []
        self._numbers = array("q")
        self._within = array("q")  # parents by position in the file: indent, nesting, rank columns
        self._nodes: dict[str, int] = {}  # by key
        self._with_id: set[int] = set()
        self._labels: dict[int, None] = {}  # ordered sets of nodes and of names
        self._duplicates: dict[str, None] = {}
        self._parents: dict[int, tuple[str, ...]] = {}
        self._ranks: dict[int, str] = {}
        self._aliases: dict[int, tuple[str, ...]] = {}
        self._languages: dict[str, dict[int, str]] = {}
        self._templates: dict[int, tuple[str, ...]] = {}
        self._prompts: dict[int, tuple[str, ...]] = {}

    def locate(self, number: int) -> str:
        """Return the prefix of a message about an entry: the input and the entry's number."""
        return f"{self._source}: {self._unit} {number}"

    def fail(self, number: int, message: str) -> NoReturn:
        """Raise a LabelError that names an entry."""
        raise LabelError(f"{self.locate(number)}: {message}")

    def add_label(
        self,
        number: int,
        name: object,
        details: EntryDetails = NO_DETAILS,
        *,
        key: str = "",
        id: str = "",
        within: int = ROOT,
    ) -> int:
        """Add an entry that is a label and return its node.

        Args:
            number: line or entry number.
            name: name of the label.
            details: its other fields.
            key: key of a label without an id; empty for its name. A branch with this key becomes
                the label.
            id: id of the label; empty without one.
            within: node that the entry is nested below in the file.

        Raises:
            LabelError: for an unusable name, or a key that an earlier entry has with another name
                or other parents.
        """
        name = self._check_text(number, name)
        if id:
            self._identify(key, id)
        node = self._find_or_add_node(number, name, key, id, within)
        if node in self._labels:
            self._check_repeat(number, node, name, within, details)
            self._duplicates[name] = None
        else:
            self._labels[node] = None
            if details is not NO_DETAILS:
                self._add_details(number, node, details)
        return node

    def add_branch(self, number: int, name: object, rank: str, *, key: str, within: int) -> int:
        """Add a node that is not (yet) a label and return it; ``key`` must be new."""
        node = self._find_or_add_node(number, self._check_text(number, name), key, "", within)
        self._ranks[node] = rank
        return node

    def _check_text(self, number: int, text: object, kind: str = "label") -> str:
        """Return a name, alias or prompt without spaces around it; refuse an unusable one."""
        if not isinstance(text, str):
            self.fail(number, f"{text!r} is not a string; {kind}s are strings")
        text = text.strip()
        if not text:
            self.fail(number, f"the {kind} is empty")
        if len(text) > MAX_LABEL_LENGTH:
            self.fail(
                number,
                f"the {kind} {text[:40]!r}... has {len(text)} characters; "
                f"the limit is {MAX_LABEL_LENGTH}",
            )
        if "\0" in text:
            self.fail(number, f"the {kind} {text!r} holds a NUL character: remove it")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                self.fail(
                    number,
                    f"the {kind} {text!r} holds half of a surrogate pair: fix the file's encoding",
                )
        return text

    def _find_or_add_node(self, number: int, name: str, key: str, id: str, within: int) -> int:
        """Return the node with the id, key or name; add it if it is new."""
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
        """Replace the key of a branch by its id; do nothing for a label or an id already in use."""
        branch = self._nodes.get(key)
        if branch is not None and branch not in self._labels and id not in self._nodes:
            del self._nodes[key]
            self._nodes[id] = branch
            self._keys[branch] = id
            self._with_id.add(branch)

    def _check_repeat(
        self, number: int, node: int, name: str, within: int, details: EntryDetails
    ) -> None:
        """Refuse an entry that has the key of a label but another name or other parents."""
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

    def _add_details(self, number: int, node: int, details: EntryDetails) -> None:
        if details.parents:
            self._parents[node] = details.parents
        if details.rank:
            self._ranks[node] = details.rank.casefold()
        if details.aliases:
            checked = (self._check_text(number, alias, "alias") for alias in details.aliases)
            own_name = self._names[node]
            if aliases := tuple(dict.fromkeys(alias for alias in checked if alias != own_name)):
                self._aliases[node] = aliases
        for language, name in details.languages.items():
            self._languages.setdefault(language, {})[node] = self._check_text(number, name, "name")
        if details.templates:
            try:
                self._templates[node] = _resolve_templates(details.templates)
            except TemplateError as error:
                raise TemplateError(f"{self.locate(number)}: {error}") from None
        if details.prompts:
            self._prompts[node] = tuple(
                dict.fromkeys(self._check_text(number, text, "prompt") for text in details.prompts)
            )

    def build(self, *, leaves_only: bool = False) -> Taxonomy:
        """Resolve parents, sort nodes so that parents come first, and return the taxonomy.

        Args:
            leaves_only: whether only nodes without children are labels.

        Raises:
            LabelError: without any label, for a missing or ambiguous parent, or a cycle.
        """
        if not self._labels:
            raise LabelError(f"{self._source}: no labels in it; give at least one")
        parents = self._resolve_parents()
        level = self._compute_levels(parents)
        label_nodes = np.fromiter(self._labels, dtype=np.int64, count=len(self._labels))
        if leaves_only:
            is_parent = np.zeros(len(self._names), dtype=np.bool_)
            is_parent[parents.indices] = True
            label_nodes = label_nodes[~is_parent[label_nodes]]
        labels = tuple(map(self._names.__getitem__, label_nodes.tolist()))
        rank_names, rank_of = self._resolve_ranks(level)
        order = _topological_order(parents, level)
        new_number = np.empty(len(order), dtype=np.int64)
        new_number[order] = np.arange(len(order))
        parents = IntLists.from_counts(parents.counts[order], new_number[parents.gather(order)])
        names = tuple(map(self._names.__getitem__, order.tolist()))
        keys = tuple(map(self._keys.__getitem__, order.tolist()))
        if names == labels:
            names = labels  # one tuple in memory instead of two
        return Taxonomy(
            labels=labels,
            duplicates=tuple(self._duplicates),
            twins=_find_twins(labels),
            label_nodes=new_number[label_nodes],
            names=names,
            keys=names if keys == names else keys,
            parents=parents,
            ranks=rank_names,
            rank_of=rank_of[order],
            aliases=_renumber(self._aliases, new_number),
            languages=MappingProxyType(
                {
                    tag: _renumber(names, new_number)
                    for tag, names in sorted(self._languages.items())
                }
            ),
            templates=_renumber(self._templates, new_number),
            prompts=_renumber(self._prompts, new_number),
        )

    def _resolve_parents(self) -> IntLists:
        within = np.array(self._within, dtype=np.int64)
        children = np.flatnonzero(within != ROOT)
        if not self._parents:
            return IntLists.from_pairs(children, within[children], len(within))
        names = _NodesByName(self._names)
        pairs = [
            (node, parent)
            for node, written in self._parents.items()
            for parent in dict.fromkeys(self._find_parent(node, name, names) for name in written)
            if parent != within[node]
        ]
        named = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return IntLists.from_pairs(
            np.concatenate([children, named[:, 0]]),
            np.concatenate([within[children], named[:, 1]]),
            len(within),
        )

    def _find_parent(self, child: int, written: str, names: _NodesByName) -> int:
        """Return the node with the id or else the only node with the name that ``child`` gives."""
        by_id = self._nodes.get(written, ROOT)
        if by_id in self._with_id:
            return by_id
        number, name = self._numbers[child], self._names[child]
        parent = names.first.get(written)
        if parent is None:
            suggestion = suggest_names(written, names.first)
            self.fail(
                number,
                f"the parent {written!r} of {name!r} has no {self._unit} of its own{suggestion}: "
                "add one, or correct the name",
            )
        if (other := names.second.get(written)) is not None:
            self.fail(
                number,
                f"the parent {written!r} of {name!r} could be {self._unit} {self._numbers[parent]} "
                f"or {self._unit} {self._numbers[other]}: name it by an id",
            )
        return parent

    def _compute_levels(self, parents: IntLists) -> Int64:
        """Return each node's level, see ``graph.compute_levels``; refuse a cycle."""
        level = graph.compute_levels(parents, parents.transposed(len(self._names)))
        if len(level) and level.min() < 0:
            cycle = graph.find_cycle(parents, level)
            path = " → ".join(self._names[node] for node in cycle)
            self.fail(
                self._numbers[cycle[0]],
                f"a label cannot be below itself: {path} goes from parent to parent in a cycle",
            )
        return level

    def _resolve_ranks(self, level: Int64) -> tuple[tuple[str, ...], Int64]:
        """Return the ranks from the top down, and the position of each node's rank (-1: none)."""
        rank_of = np.full(len(self._names), -1, dtype=np.int64)
        if not self._ranks:
            return (), rank_of
        position = {rank: number for number, rank in enumerate(dict.fromkeys(self._ranks.values()))}
        nodes = np.fromiter(self._ranks, dtype=np.int64, count=len(self._ranks))
        codes = np.array([position[rank] for rank in self._ranks.values()], dtype=np.int64)
        means = np.bincount(codes, weights=level[nodes]) / np.bincount(codes)
        names = ranks.order_ranks(dict(zip(position, means.tolist(), strict=True)))
        rank_of[nodes] = np.array([names.index(rank) for rank in position], dtype=np.int64)[codes]
        return names, rank_of


class _NodesByName:
    """First node of each name, and the second where a name is ambiguous."""

    def __init__(self, names: list[str]) -> None:
        self.first: dict[str, int] = {}
        self.second: dict[str, int] = {}
        for node, name in enumerate(names):
            if self.first.setdefault(name, node) != node:
                self.second.setdefault(name, node)


@lru_cache(maxsize=1024)  # whole subtrees of rows repeat their templates
def _resolve_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    return prompts.resolve(templates)


def _topological_order(parents: IntLists, level: Int64) -> Int64:
    """Return nodes with parents before children: in file order if that has parents first."""
    if np.all(parents.indices < parents.owners):
        return np.arange(len(level), dtype=np.int64)
    return np.argsort(level, kind="stable")


def _renumber(values: Mapping[int, T], new_number: Int64) -> Mapping[int, T]:
    return MappingProxyType(dict(sorted((int(new_number[node]), v) for node, v in values.items())))


def _find_twins(labels: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return pairs of labels that differ only in case or Unicode form."""
    firsts: dict[str, str] = {}
    twins: list[tuple[str, str]] = []
    for name in labels:
        first = firsts.setdefault(fold_name(name), name)
        if first != name:
            twins.append((first, name))
    return tuple(twins)
