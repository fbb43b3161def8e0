"""Taxonomy: nodes in columns, some of which are labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zsic_index.embedding_arrays import Int64
from zsic_index.taxonomy.graph import IntLists


@dataclass(frozen=True, slots=True, eq=False)
class Taxonomy:
    """N labels among M >= N nodes of a directed acyclic graph; immutable.

    A node is a number from 0 to M - 1, smaller than those of its children. Fields that few nodes
    have are mappings from nodes.

    Attributes:
        labels: N names in file order. They are distinct unless the file has ids.
        duplicates: names that occur again in the file; the first one is kept.
        twins: pairs of labels that differ only in case or Unicode form and would share
            probability; both are kept.
        label_nodes: (N,) int64, node of each label.
        names: M names.
        keys: M distinct keys, stable across builds: the id where the file has one, else the names
            from the root down, joined by ``/``.
        parents: parents of each node, in file order.
        ranks: names of the ranks, from the top down, in lower case.
        rank_of: (M,) int64, position in ``ranks``; -1 for a node without a rank.
        aliases: node → other names in the same language.
        languages: language tag → node → name.
        templates: node → templates for it and all nodes below it.
        prompts: node → whole prompts, used instead of rendered templates.
    """

    labels: tuple[str, ...]
    duplicates: tuple[str, ...]
    twins: tuple[tuple[str, str], ...]
    label_nodes: Int64
    names: tuple[str, ...]
    keys: tuple[str, ...]
    parents: IntLists
    ranks: tuple[str, ...]
    rank_of: Int64
    aliases: Mapping[int, tuple[str, ...]]
    languages: Mapping[str, Mapping[int, str]]
    templates: Mapping[int, tuple[str, ...]]
    prompts: Mapping[int, tuple[str, ...]]

    @property
    def label_keys(self) -> tuple[str, ...]:
        """Distinct keys of the N labels."""
        return tuple(self.keys[node] for node in self.label_nodes.tolist())

    def translations(self, node: int) -> tuple[str, ...]:
        """Return a node's names in other languages."""
        return tuple(names[node] for names in self.languages.values() if node in names)

    @property
    def is_plain(self) -> bool:
        """Whether it has nothing but names of labels."""
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
