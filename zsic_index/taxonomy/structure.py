"""Structure of a taxonomy: ancestors, descendants, ranks, and the prompts of its labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from zsic_index import prompts
from zsic_index.embedding_arrays import Int64
from zsic_index.errors import LabelError
from zsic_index.taxonomy import graph, ranks
from zsic_index.taxonomy.graph import IntLists
from zsic_index.taxonomy.model import Taxonomy
from zsic_index.taxonomy.names import fold_name, suggest_names

_MOST_KEYS = 5
"""Number of keys listed in the message about an ambiguous name."""


class Structure:
    """Lookups in one taxonomy, with tables that are computed on first use.

    Labels are given by position, 0 to N - 1, nodes by number, 0 to M - 1. The depth of a node is
    the number of steps up to the nearest node without parents.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy

    @property
    def parents(self) -> IntLists:
        """Parents of each node."""
        return self.taxonomy.parents

    @cached_property
    def children(self) -> IntLists:
        """Children of each node."""
        return self.parents.transposed(len(self.taxonomy.names))

    @cached_property
    def label_of(self) -> Int64:
        """Label at each node, (M,) int64; -1 for a node that is not a label."""
        taxonomy = self.taxonomy
        label_of = np.full(len(taxonomy.names), -1, dtype=np.int64)
        label_of[taxonomy.label_nodes] = np.arange(len(taxonomy.labels))
        return label_of

    @cached_property
    def by_level(self) -> list[Int64]:
        """Nodes of each level; parents are on earlier levels than their children."""
        return graph.split_by_level(graph.compute_levels(self.parents, self.children))

    @cached_property
    def depths(self) -> Int64:
        """Depth of each node, (M,) int64."""
        return graph.compute_distances(self.children, np.flatnonzero(self.parents.counts == 0))

    @cached_property
    def ranks(self) -> tuple[str, ...]:
        """Ranks from the top down; ``depth 0``, ``depth 1``, ... in a taxonomy without ranks."""
        if self.taxonomy.ranks:
            return self.taxonomy.ranks
        return tuple(ranks.name_depth(depth) for depth in range(int(self.depths.max()) + 1))

    @cached_property
    def row_order(self) -> Int64:
        """Labels in depth-first order, (N,) int64: the labels below a node are mostly adjacent.

        A node with several parents counts as a child of the one that the file names first.
        """
        parents = self.parents
        has_parent = parents.counts > 0
        first = np.full(len(has_parent), -1, dtype=np.int64)
        first[has_parent] = parents.indices[parents.indptr[:-1][has_parent]]
        size = np.ones(len(has_parent), dtype=np.int64)  # nodes of each subtree
        inner_levels = [level[has_parent[level]] for level in self.by_level]
        for nodes in reversed(inner_levels):
            np.add.at(size, first[nodes], size[nodes])
        # A node comes after its parent and the subtrees of its elder siblings.
        place = np.zeros(len(has_parent), dtype=np.int64)
        roots = np.flatnonzero(~has_parent)
        place[roots] = np.cumsum(size[roots]) - size[roots]
        for nodes in inner_levels:
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
            rank: name of a rank in any case, or ``depth 2`` for all nodes of that depth.

        Raises:
            LabelError: for an unknown rank or depth; it lists the ranks.
        """
        name = rank.strip().casefold()
        if name in self.taxonomy.ranks:
            return np.flatnonzero(self.taxonomy.rank_of == self.taxonomy.ranks.index(name))
        depth = ranks.parse_depth(name)
        if depth is None or depth > self.depths.max():
            raise LabelError(f"no rank {rank!r} here; use one of {', '.join(self.ranks)}")
        return np.flatnonzero(self.depths == depth)

    def ancestors(self, node: int) -> Int64:
        """Return all nodes above a node, in ascending order."""
        above = graph.find_reachable(self.parents, np.array([node]))
        above[node] = False
        return np.flatnonzero(above)

    def descendants(self, node: int) -> Int64:
        """Return the labels at a node and below it, in ascending order."""
        labels = self.label_of[graph.find_reachable(self.children, np.array([node]))]
        return np.sort(labels[labels >= 0])

    def path(self, label: int) -> tuple[int, ...]:
        """Return the nodes from the top down to a label; see ``path_to``."""
        return self.path_to(int(self.taxonomy.label_nodes[label]))

    def path_to(self, node: int) -> tuple[int, ...]:
        """Return the nodes from the top down to a node.

        Of several paths it is the shortest; of equally short ones, the one through the parent that
        the file names first.
        """
        path = [node]
        while len(above := self.parents.of(node)):
            node = int(above[np.argmin(self.depths[above])])
            path.append(node)
        return tuple(reversed(path))

    def find(self, name: str) -> int:
        """Return the node with a key; else the only node with that name; else ignoring case.

        Raises:
            LabelError: for an unknown or ambiguous name.
        """
        if (node := self._by_key.get(name)) is not None:
            return node
        nodes = self._by_name.get(name) or self._by_folded.get(fold_name(name), [])
        if len(nodes) == 1:
            return nodes[0]
        if not nodes:
            raise LabelError(
                f"{name!r} is no name or key in this taxonomy{suggest_names(name, self._by_name)}"
            )
        keys = ", ".join(repr(self.taxonomy.keys[node]) for node in nodes[:_MOST_KEYS])
        more = ", ..." if len(nodes) > _MOST_KEYS else ""
        raise LabelError(f"{name!r} is the name of {len(nodes)}: use one of the keys {keys}{more}")

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
            nodes[fold_name(name)].append(node)
        return dict(nodes)

    def labels_in(self, language: str) -> tuple[str, ...]:
        """Return the names of the N labels in a language; the label itself where it has none.

        Raises:
            LabelError: for a language without any names.
        """
        names = self._names_in(language)
        taxonomy = self.taxonomy
        return tuple(
            names.get(node, own)
            for node, own in zip(taxonomy.label_nodes.tolist(), taxonomy.labels, strict=True)
        )

    def names_in(self, language: str) -> dict[str, str]:
        """Return key → name in a language for all M nodes; the own name where there is none.

        Raises:
            LabelError: for a language without any names.
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
        """Return the templates that the taxonomy has for a label; empty without any.

        They are those of its own node or else of the nearest ancestor with templates; of several
        equally near, the one reached through the parent that the file names first.
        """
        source = int(self._template_source[self.taxonomy.label_nodes[label]])
        return self.taxonomy.templates[source] if source >= 0 else ()

    def names_of(self, label: int) -> tuple[str, ...]:
        """Return a label's name and then its aliases, each once.

        A label with its own prompts has one embedding whatever its aliases are: only its name is
        returned.
        """
        node = int(self.taxonomy.label_nodes[label])
        others = () if node in self.taxonomy.prompts else self.taxonomy.aliases.get(node, ())
        return tuple(dict.fromkeys((self.taxonomy.labels[label], *others)))

    def prompts_of_name(self, label: int, name: str, templates: Sequence[str]) -> list[str]:
        """Return the prompts of one name of a label; see ``prompts_of``."""
        return prompts.render(name, self.templates_of(label) or templates)

    def prompts_of(self, label: int, templates: Sequence[str]) -> list[str]:
        """Return the prompts of a label: its own, or all its names in its templates.

        All prompts are averaged into one embedding, so that names of the same thing do not share
        probability between them.

        Args:
            label: position of the label.
            templates: templates for a label that the taxonomy has none for.
        """
        if own := self.taxonomy.prompts.get(int(self.taxonomy.label_nodes[label])):
            return list(own)
        names = self.names_of(label)
        by_name = [self.prompts_of_name(label, name, templates) for name in names]
        return list(dict.fromkeys(prompt for own_prompts in by_name for prompt in own_prompts))

    @cached_property
    def _template_source(self) -> Int64:
        """Node whose templates apply to each node, (M,) int64; -1 for none."""
        source = np.full(len(self.taxonomy.names), -1, dtype=np.int64)
        if not self.taxonomy.templates:
            return source
        unreachable = len(source)
        distance = np.full(len(source), unreachable, dtype=np.int64)
        own = np.fromiter(self.taxonomy.templates, dtype=np.int64)
        source[own], distance[own] = own, 0
        parent_counts = self.parents.counts
        for level in self.by_level[1:]:
            nodes = level[distance[level] > 0]
            if not len(nodes):
                continue
            above = self.parents.gather(nodes)
            counts = parent_counts[nodes]
            starts = np.cumsum(counts) - counts
            least = np.minimum.reduceat(distance[above], starts)
            is_least = np.flatnonzero(distance[above] == np.repeat(least, counts))
            first = is_least[np.searchsorted(is_least, starts)]
            source[nodes] = source[above[first]]
            distance[nodes] = np.minimum(least + 1, unreachable)
        return source
