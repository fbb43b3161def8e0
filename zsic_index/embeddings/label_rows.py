"""Rows of an index: one for each label, or one for each name of a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from zsic_index.embedding_arrays import Int64
from zsic_index.embeddings.labels import PromptsOf, bind_templates
from zsic_index.records import NamePooling
from zsic_index.taxonomy.graph import IntLists
from zsic_index.taxonomy.structure import Structure


@dataclass(frozen=True, slots=True, eq=False)
class LabelRows:
    """R rows of N labels, label by label in the taxonomy's order.

    Attributes:
        names: R names that the rows are embeddings of.
        counts: (N,) int64 number of rows of each label, at least 1.
        prompts_of: returns the prompts of a row.
    """

    names: Sequence[str]
    counts: Int64
    prompts_of: PromptsOf

    @classmethod
    def from_structure(
        cls, structure: Structure, name_pooling: NamePooling, templates: Sequence[str]
    ) -> LabelRows:
        """Return the rows of a taxonomy's labels.

        A name that a label has twice makes one row. A label with its own prompts has one row,
        because these replace the prompts of all its names.

        Args:
            structure: of the taxonomy.
            name_pooling: how several names make one label.
            templates: used for labels that have no templates in the taxonomy.
        """
        taxonomy = structure.taxonomy
        if name_pooling == "mean" or not taxonomy.aliases:
            prompts_of: PromptsOf = bind_templates(taxonomy.labels, templates)
            if not taxonomy.is_plain:
                prompts_of = partial(structure.prompts_of, templates=templates)
            return cls(taxonomy.labels, np.ones(len(taxonomy.labels), dtype=np.int64), prompts_of)
        by_label = [structure.names_of(label) for label in range(len(taxonomy.labels))]
        names = [name for of_label in by_label for name in of_label]
        counts = np.fromiter(map(len, by_label), np.int64, len(by_label))
        label_of = np.repeat(np.arange(len(counts)), counts)

        def prompts_of_row(row: int) -> list[str]:
            label = int(label_of[row])
            if counts[label] == 1:
                return structure.prompts_of(label, templates)
            return structure.prompts_of_name(label, names[row], templates)

        return cls(names, counts, prompts_of_row)

    def find_labels(self, rows: Int64) -> Int64:
        """Return the labels of (n,) rows, each once, in ascending order."""
        return np.unique(np.searchsorted(np.cumsum(self.counts), rows, side="right"))

    def reorder(self, labels: Int64) -> Int64:
        """Return the (R,) rows in the order of (N,) labels."""
        return IntLists.from_counts(self.counts, np.arange(len(self.names))).gather(labels)
