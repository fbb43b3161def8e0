"""Names and keys of an index's labels, and the rows they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from zsic_index.embedding_arrays import Int64
from zsic_index.errors import LabelError
from zsic_index.label_index.opening import is_current
from zsic_index.records import IndexInfo
from zsic_index.store import LabelPlace, Store


class LabelNames:
    """Look-ups between label ids, names, keys and rows of one generation of an index.

    Names are read from the store when they are needed, and so are current; after ``pinned`` they
    are those of one moment.
    """

    def __init__(
        self,
        store: Store,
        info: IndexInfo,
        label_ids: Int64,
        *,
        names: Mapping[int, str] | None = None,
        keys: Mapping[int, str] | None = None,
    ) -> None:
        self._store = store
        self._info = info
        self._label_ids = label_ids
        self._names = names
        self._keys = keys

    def pinned(self) -> LabelNames:
        """Return the same with all names and keys in memory."""
        ids = self._label_ids.tolist()
        names, keys = self._store.labels.find_names(ids), self._store.labels.find_keys(ids)
        # Most names are keys as well: one string serves for both.
        keys = {
            label_id: names[label_id] if key == names[label_id] else key
            for label_id, key in keys.items()
        }
        return LabelNames(self._store, self._info, self._label_ids, names=names, keys=keys)

    def names_of(self, label_ids: Sequence[int]) -> list[str]:
        """Return the names of labels, those included that have left the index since."""
        names = self._names if self._names is not None else self._store.labels.find_names(label_ids)
        return [names[label_id] for label_id in label_ids]

    def keys_of(self, label_ids: Sequence[int]) -> list[str]:
        """Return the keys of labels in the taxonomy."""
        keys = self._keys if self._keys is not None else self._store.labels.find_keys(label_ids)
        return [keys[label_id] for label_id in label_ids]

    def rows_of(self, labels: Sequence[str]) -> dict[str, int]:
        """Return the row of each label that is in this generation of the index.

        Args:
            labels: keys, or names that only one label has.

        Raises:
            LabelError: for a name that several labels have.
        """
        rows: dict[str, int] = {}
        for label, places in self._store.labels.find_places(self._info.index_id, labels).items():
            row_of_key = {
                place.key: row for place in places if (row := self._row(place)) is not None
            }
            if label in row_of_key:
                rows[label] = row_of_key[label]
            elif len(row_of_key) > 1:
                keys = ", ".join(map(repr, row_of_key))
                raise LabelError(
                    f"{label!r} is the name of {len(row_of_key)} labels: use one of {keys}"
                )
            elif row_of_key:
                rows[label] = next(iter(row_of_key.values()))
        return rows

    def _row(self, place: LabelPlace) -> int | None:
        row = place.position
        count = len(self._label_ids)
        if row is not None and row < count and self._label_ids[row] == place.label_id:
            return row
        if is_current(self._store, self._info):
            return None
        # The store has a newer generation: the order of this one is in its file alone.
        at = int(np.searchsorted(self._label_ids, place.label_id, sorter=self._order))
        row = int(self._order[min(at, count - 1)])
        return row if self._label_ids[row] == place.label_id else None

    @cached_property
    def _order(self) -> Int64:
        """(N,) rows in the order of their label ids."""
        return np.argsort(self._label_ids)
