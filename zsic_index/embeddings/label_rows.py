"""Which rows an index has for its labels: one for each, or one for each of its names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from zsic_index.embedding_arrays import Int64
from zsic_index.embeddings.labels import PromptsOf, rendered
from zsic_index.records import NamePooling
from zsic_index.taxonomy.graph import IntLists
from zsic_index.taxonomy.structure import Structure


@dataclass(frozen=True, slots=True, eq=False)
class LabelRows:
    """R rows for N labels, label by label in the taxonomy's order.

    Attributes:
        names: R names, each of what a row is the embedding of.
        counts: (N,) int64, the rows of each label; at least 1.
        prompts_of: gives a row's prompts.
    """

    names: Sequence[str]
    counts: Int64
    prompts_of: PromptsOf

    @classmethod
    def of(
        cls, structure: Structure, name_pooling: NamePooling, templates: Sequence[str]
    ) -> LabelRows:
        """Return the rows of a taxonomy's labels.

        A name that a label has twice is one row. A label with prompts of its own has one row, for
        these stand in for all of its names.

        Args:
            structure: of the taxonomy.
            name_pooling: how several names make one label.
            templates: what to use where the taxonomy has no templates for a label.
        """
        taxonomy = structure.taxonomy
        if name_pooling == "mean" or not taxonomy.aliases:
            prompts_of: PromptsOf = rendered(taxonomy.labels, templates)
            if not taxonomy.is_plain:
                prompts_of = partial(structure.prompts_of, templates=templates)
            return cls(taxonomy.labels, np.ones(len(taxonomy.labels), dtype=np.int64), prompts_of)
        by_label = [structure.names_of(at) for at in range(len(taxonomy.labels))]
        flat = [name for of_label in by_label for name in of_label]
        counts = np.fromiter(map(len, by_label), np.int64, len(by_label))
        label_of = np.repeat(np.arange(len(counts)), counts)

        def of_name(row: int) -> list[str]:
            label = int(label_of[row])
            if counts[label] == 1:
                return structure.prompts_of(label, templates)
            return structure.prompts_of_name(label, flat[row], templates)

        return cls(flat, counts, of_name)

    def labels_of(self, rows: Int64) -> Int64:
        """Return the labels, each once and in ascending order, that (n,) rows are of."""
        return np.unique(np.searchsorted(np.cumsum(self.counts), rows, side="right"))

    def in_order(self, labels: Int64) -> Int64:
        """Return the (R,) rows, for (N,) labels in another order."""
        return IntLists.from_counts(self.counts, np.arange(len(self.names))).gather(labels)
