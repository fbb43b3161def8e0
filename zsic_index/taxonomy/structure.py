"""Questions about a taxonomy: what is above, what is below, what applies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from zsic_index import prompts
from zsic_index.embedding_arrays import Int64
from zsic_index.errors import LabelError
from zsic_index.taxonomy import graph, ranks
from zsic_index.taxonomy.graph import Csr
from zsic_index.taxonomy.model import Taxonomy
from zsic_index.taxonomy.names import folded, nearest

_SHOWN = 5
"""Keys in the message about a name that several nodes have."""


class Structure:
    """Answers about one taxonomy; what they need is computed when it is first asked for.

    A label is its position, 0 to N - 1; a node is its number, 0 to M - 1. A node's depth is the
    number of steps from it up to the nearest node without parents.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy

    @property
    def parents(self) -> Csr:
        """For each node its parents."""
        return self.taxonomy.parents

    @cached_property
    def children(self) -> Csr:
        """For each node its children."""
        return self.parents.transposed(len(self.taxonomy.names))

    @cached_property
    def label_of(self) -> Int64:
        """(M,) position of the label that a node is; -1 for a node that is none."""
        taxonomy = self.taxonomy
        label_of = np.full(len(taxonomy.names), -1, dtype=np.int64)
        label_of[taxonomy.label_nodes] = np.arange(len(taxonomy.labels))
        return label_of

    @cached_property
    def by_level(self) -> list[Int64]:
        """Nodes in groups, so that all parents of a group's nodes are in groups before it."""
        return graph.by_level(graph.levels(self.parents, self.children))

    @cached_property
    def depths(self) -> Int64:
        """(M,) depth of each node."""
        return graph.distances(self.children, np.flatnonzero(self.parents.counts == 0))

    @cached_property
    def ranks(self) -> tuple[str, ...]:
        """The ranks from the top down; ``depth 0`` and so on, where the taxonomy has none."""
        if self.taxonomy.ranks:
            return self.taxonomy.ranks
        return tuple(ranks.depth_name(depth) for depth in range(int(self.depths.max()) + 1))

    @cached_property
    def row_order(self) -> Int64:
        """(N,) label positions, so that the labels below a node lie together as far as they can.

        Depth first; a node with several parents stands under the one that the file names first.
        """
        parents = self.parents
        has = parents.counts > 0
        first = np.full(len(has), -1, dtype=np.int64)
        first[has] = parents.indices[parents.indptr[:-1][has]]
        size = np.ones(len(has), dtype=np.int64)
        tops = [level[has[level]] for level in self.by_level]
        for nodes in reversed(tops):
            np.add.at(size, first[nodes], size[nodes])
        # A node comes after its parent and what is below its elder siblings.
        place = np.zeros(len(has), dtype=np.int64)
        roots = np.flatnonzero(~has)
        place[roots] = np.cumsum(size[roots]) - size[roots]
        for nodes in tops:
            if len(nodes):
                by_parent = nodes[np.argsort(first[nodes], kind="stable")]
                before = np.cumsum(size[by_parent]) - size[by_parent]
                starts = np.flatnonzero(np.diff(first[by_parent], prepend=-1))
                counts = np.diff(np.append(starts, len(by_parent)))
                before -= np.repeat(before[starts], counts)
                place[by_parent] = place[first[by_parent]] + 1 + before
        return np.argsort(place[self.taxonomy.label_nodes], kind="stable")

    def nodes_at(self, rank: str) -> Int64:
        """Return the nodes of a rank, in ascending order.

        Args:
            rank: a rank's name in any case, or ``depth 2`` for all nodes of that depth.

        Raises:
            LabelError: when there is no node of it.
        """
        wanted = rank.strip().casefold()
        if wanted in self.taxonomy.ranks:
            return np.flatnonzero(self.taxonomy.rank_of == self.taxonomy.ranks.index(wanted))
        depth = ranks.depth_of(wanted)
        if depth is None or depth > self.depths.max():
            raise LabelError(f"no rank {rank!r} here; use one of {', '.join(self.ranks)}")
        return np.flatnonzero(self.depths == depth)

    def ancestors(self, node: int) -> Int64:
        """Return all nodes above one, in ascending order."""
        above = graph.reachable(self.parents, np.array([node]))
        above[node] = False
        return np.flatnonzero(above)

    def descendants(self, node: int) -> Int64:
        """Return the labels that a node or anything below it is, in ascending order."""
        labels = self.label_of[graph.reachable(self.children, np.array([node]))]
        return np.sort(labels[labels >= 0])

    def path(self, label: int) -> tuple[int, ...]:
        """Return the nodes from the top down to a label's own; see ``path_to``."""
        return self.path_to(int(self.taxonomy.label_nodes[label]))

    def path_to(self, node: int) -> tuple[int, ...]:
        """Return the nodes from the top down to one.

        Where there are several ways up, the shortest; of equally short ones, that through the
        parent that the file names first.
        """
        path = [node]
        while len(above := self.parents.of(node)):
            node = int(above[np.argmin(self.depths[above])])
            path.append(node)
        return tuple(reversed(path))

    def find(self, name: str) -> int:
        """Return the node of that key; else the only one of that name; else in any case.

        Raises:
            LabelError: when there is none, or several have the name.
        """
        if (node := self._by_key.get(name)) is not None:
            return node
        found = self._by_name.get(name) or self._by_folded.get(folded(name), [])
        if len(found) == 1:
            return found[0]
        if not found:
            raise LabelError(
                f"{name!r} is no name or key in this taxonomy{nearest(name, self._by_name)}"
            )
        keys = ", ".join(repr(self.taxonomy.keys[node]) for node in found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        raise LabelError(f"{name!r} is the name of {len(found)}: use one of the keys {keys}{more}")

    @cached_property
    def _by_key(self) -> dict[str, int]:
        return {key: node for node, key in enumerate(self.taxonomy.keys)}

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        nodes = defaultdict(list)
        for node, name in enumerate(self.taxonomy.names):
            nodes[name].append(node)
        return dict(nodes)

    @cached_property
    def _by_folded(self) -> dict[str, list[int]]:
        nodes = defaultdict(list)
        for node, name in enumerate(self.taxonomy.names):
            nodes[folded(name)].append(node)
        return dict(nodes)

    def labels_in(self, language: str) -> tuple[str, ...]:
        """Return N names in a language; a label without one there keeps its own.

        Raises:
            LabelError: for a language that no node has a name in.
        """
        names = self._names_in(language)
        taxonomy = self.taxonomy
        return tuple(
            names.get(node, own)
            for node, own in zip(taxonomy.label_nodes.tolist(), taxonomy.labels, strict=True)
        )

    def names_in(self, language: str) -> dict[str, str]:
        """Return the M names in a language by key; a node without one there keeps its own.

        Raises:
            LabelError: for a language that no node has a name in.
        """
        names = self._names_in(language)
        taxonomy = self.taxonomy
        both = zip(taxonomy.keys, taxonomy.names, strict=True)
        return {key: names.get(node, own) for node, (key, own) in enumerate(both)}

    def _names_in(self, language: str) -> Mapping[int, str]:
        tags = {tag.casefold(): tag for tag in self.taxonomy.languages}
        tag = tags.get(language.casefold())
        if tag is None:
            raise LabelError(
                f"no names in {language!r}; "
                + (f"there are some in {', '.join(tags.values())}" if tags else "it has no lang:")
            )
        return self.taxonomy.languages[tag]

    def templates_of(self, label: int) -> tuple[str, ...]:
        """Return the templates that apply to a label; none where the taxonomy says nothing.

        They are those of the node itself or else of the nearest above it; of several equally near,
        those that are reached through the parent that the file names first.
        """
        source = int(self._template_source[self.taxonomy.label_nodes[label]])
        return self.taxonomy.templates[source] if source >= 0 else ()

    def names_of(self, label: int) -> tuple[str, ...]:
        """Return a label's name and then its aliases, each once.

        Where it has prompts of its own there is nothing to tell its names apart by: only its name.
        """
        node = int(self.taxonomy.label_nodes[label])
        others = () if node in self.taxonomy.prompts else self.taxonomy.aliases.get(node, ())
        return tuple(dict.fromkeys((self.taxonomy.labels[label], *others)))

    def prompts_of_name(self, label: int, name: str, templates: Sequence[str]) -> list[str]:
        """Return one of a label's names in its templates; see ``prompts_of``."""
        return prompts.render(name, self.templates_of(label) or templates)

    def prompts_of(self, label: int, templates: Sequence[str]) -> list[str]:
        """Return a label's prompts: its own, or its names in its templates.

        All prompts are averaged into one embedding, so that names for the same thing do not share
        its probability between them.

        Args:
            label: its position.
            templates: what to use where the taxonomy has no templates for it.
        """
        if own := self.taxonomy.prompts.get(int(self.taxonomy.label_nodes[label])):
            return list(own)
        names = self.names_of(label)
        found = [self.prompts_of_name(label, name, templates) for name in names]
        return list(dict.fromkeys(prompt for of_name in found for prompt in of_name))

    @cached_property
    def _template_source(self) -> Int64:
        """(M,) the node whose templates apply; -1 where there is none."""
        source = np.full(len(self.taxonomy.names), -1, dtype=np.int64)
        if not self.taxonomy.templates:
            return source
        far = len(source)
        away = np.full(len(source), far, dtype=np.int64)
        own = np.fromiter(self.taxonomy.templates, dtype=np.int64)
        source[own], away[own] = own, 0
        parent_counts = self.parents.counts
        for level in self.by_level[1:]:
            nodes = level[away[level] > 0]
            if not len(nodes):
                continue
            above = self.parents.gather(nodes)
            counts = parent_counts[nodes]
            starts = np.cumsum(counts) - counts
            least = np.minimum.reduceat(away[above], starts)
            is_least = np.flatnonzero(away[above] == np.repeat(least, counts))
            first = is_least[np.searchsorted(is_least, starts)]
            source[nodes] = source[above[first]]
            away[nodes] = np.minimum(least + 1, far)
        return source
