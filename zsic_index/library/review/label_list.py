"""The labels of an index as a list to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Int64
from zsic_index.label_index import LabelIndex
from zsic_index.store.photo_records import LabelCounts
from zsic_index.taxonomy.names import folded

_NONE = LabelCounts()


@dataclass(frozen=True, slots=True)
class ListedLabel:
    """A label.

    Attributes:
        label_id: its id.
        row: its row in the index.
        name: its name.
        path: names of the nodes above it, from the top down.
    """

    label_id: int
    row: int
    name: str
    path: tuple[str, ...]


class LabelList:
    """All labels of an index, by row."""

    def __init__(self, index: LabelIndex) -> None:
        self._index = index
        self._ids = index.label_ids
        self._order = np.argsort(self._ids)
        structure = index.structure
        names = structure.taxonomy.names
        # Rows have the labels in the structure's order, see LabelIndex.taxonomy.
        self._paths = [
            tuple(names[node] for node in structure.path(label))
            for label in structure.row_order.tolist()
        ]
        self._folded = [folded(" / ".join(path)) for path in self._paths]
        self._by_name = np.argsort(np.argsort([folded(path[-1]) for path in self._paths]))

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, label_id: int) -> ListedLabel | None:
        """Return a label by its id, or None."""
        at = int(np.searchsorted(self._ids, label_id, sorter=self._order))
        row = int(self._order[min(at, len(self) - 1)])
        return self._at(row) if self._ids[row] == label_id else None

    def search(
        self, words: str, counts: Mapping[int, LabelCounts], start: int, number: int
    ) -> tuple[int, list[ListedLabel]]:
        """Return how many labels have all words in their path, and some of these.

        Those with the most tagged photos come first, then by name.

        Args:
            words: separated by spaces, in any case; none for all labels.
            counts: by label id.
            start: the first to return, from 0.
            number: how many to return at most.
        """
        wanted = folded(words).split()
        rows: Int64 = np.array(
            [row for row, path in enumerate(self._folded) if all(one in path for one in wanted)],
            dtype=np.int64,
        )
        tagged = np.array([counts.get(one, _NONE).tagged for one in self._ids[rows].tolist()])
        order = np.lexsort((self._by_name[rows], -tagged)) if len(rows) else rows
        return len(rows), [self._at(row) for row in rows[order][start : start + number].tolist()]

    def _at(self, row: int) -> ListedLabel:
        path = self._paths[row]
        return ListedLabel(int(self._ids[row]), row, path[-1], path[:-1])
