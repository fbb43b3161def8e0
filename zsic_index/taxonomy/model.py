"""What a taxonomy is: nodes in columns, some of which are labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zsic_index.embedding_arrays import Int64
from zsic_index.taxonomy.graph import Csr


@dataclass(frozen=True, slots=True, eq=False)
class Taxonomy:
    """N labels, which are M >= N nodes under one another, and what was noticed about them.

    A node is a number from 0 to M - 1; a parent's is smaller than its children's. What few nodes
    have is kept by node. Nothing in it is ever changed.

    Attributes:
        labels: N names in the order of their first mention. They are distinct unless the file
            has ids: then names may be shared.
        duplicates: names that were given again; the first mention is kept.
        twins: pairs of labels that differ only in case or Unicode form, which would split
            probability between them; both are kept.
        label_nodes: (N,) int64, the node of each label.
        names: M names.
        keys: M distinct strings by which nodes are known for good: the id where the file has
            one; else the names from the root down with ``/`` between them.
        parents: for each node its parents, as the file lists them.
        ranks: names of the ranks, from the top down, in lower case.
        rank_of: (M,) int64, the position in ``ranks``; -1 for a node without one.
        aliases: other names in the same language, by node.
        languages: for each language tag, names by node.
        templates: templates for a node and all below it, by node.
        prompts: whole prompts that stand in for rendered templates, by node.
    """

    labels: tuple[str, ...]
    duplicates: tuple[str, ...]
    twins: tuple[tuple[str, str], ...]
    label_nodes: Int64
    names: tuple[str, ...]
    keys: tuple[str, ...]
    parents: Csr
    ranks: tuple[str, ...]
    rank_of: Int64
    aliases: Mapping[int, tuple[str, ...]]
    languages: Mapping[str, Mapping[int, str]]
    templates: Mapping[int, tuple[str, ...]]
    prompts: Mapping[int, tuple[str, ...]]

    @property
    def label_keys(self) -> tuple[str, ...]:
        """The N distinct keys of the labels."""
        return tuple(self.keys[node] for node in self.label_nodes.tolist())

    def translations(self, node: int) -> tuple[str, ...]:
        """Return a node's names in other languages."""
        return tuple(names[node] for names in self.languages.values() if node in names)

    @property
    def is_plain(self) -> bool:
        """Whether it says no more than its labels do."""
        return not (
            len(self.parents.indices)
            or self.ranks
            or self.aliases
            or self.languages
            or self.templates
            or self.prompts
            or self.label_keys != self.labels
        )

    def __post_init__(self) -> None:
        self.label_nodes.setflags(write=False)
        self.rank_of.setflags(write=False)
