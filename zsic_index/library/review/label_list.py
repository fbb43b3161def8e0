"""The labels of an index as a searchable list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Int64
from zsic_index.label_index import LabelIndex
from zsic_index.store.photo_records import LabelCounts
from zsic_index.taxonomy.names import fold_name

_NO_COUNTS = LabelCounts()


@dataclass(frozen=True, slots=True)
class ListedLabel:
    """A label with its place in the taxonomy.

    Attributes:
        label_id: id of the label.
        row: its row in the index.
        name: its name.
        path: names of the nodes above it, from the top down.
    """

    label_id: int
    row: int
    name: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """A label with its numbers of tagged photos and of verdicts."""

    label: ListedLabel
    counts: LabelCounts


class LabelList:
    """All labels of an index, by row."""

    def __init__(self, index: LabelIndex) -> None:
        self._index = index
        self._ids = index.label_ids
        self._order = np.argsort(self._ids)
        structure = index.structure
        names = structure.taxonomy.names
        # The rows of an index are in the order of its structure, see LabelIndex.structure.
        self._paths = [
            tuple(names[node] for node in structure.path(label))
            for label in structure.row_order.tolist()
        ]
        self._folded = [fold_name(" / ".join(path)) for path in self._paths]
        self._by_name = np.argsort(np.argsort([fold_name(path[-1]) for path in self._paths]))

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, label_id: int) -> ListedLabel | None:
        """Return a label by its id, or None."""
        position = int(np.searchsorted(self._ids, label_id, sorter=self._order))
        row = int(self._order[min(position, len(self) - 1)])
        return self._at(row) if self._ids[row] == label_id else None

    def search(
        self, words: str, counts: Mapping[int, LabelCounts], start: int, number: int
    ) -> tuple[int, list[LabelSummary]]:
        """Return how many labels have all words in their path, and a page of them.

        Labels are sorted by their number of tagged photos, descending, then by name.

        Args:
            words: words separated by spaces, in any case; empty for all labels.
            counts: label id → counts.
            start: position of the first label of the page, from 0.
            number: maximum number of labels on the page.
        """
        terms = fold_name(words).split()
        rows: Int64 = np.array(
            [row for row, path in enumerate(self._folded) if all(term in path for term in terms)],
            dtype=np.int64,
        )
        ids = self._ids[rows].tolist()
        tagged = np.array([counts.get(label_id, _NO_COUNTS).tagged for label_id in ids])
        order = np.lexsort((self._by_name[rows], -tagged)) if len(rows) else rows
        labels = [self._at(row) for row in rows[order][start : start + number].tolist()]
        return len(rows), [
            LabelSummary(label, counts.get(label.label_id, _NO_COUNTS)) for label in labels
        ]

    def _at(self, row: int) -> ListedLabel:
        path = self._paths[row]
        return ListedLabel(int(self._ids[row]), row, path[-1], path[:-1])
