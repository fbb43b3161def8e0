"""Labels: their names and keys, by id, and the other way round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select

from zsic_index.store.database import Database
from zsic_index.store.statements import iter_chunks
from zsic_index.store.tables import LABEL


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """A label and its position in the current generation of its index.

    Attributes:
        label_id: its id.
        key: its key.
        position: its position among the labels; None for a label that has left the index.
    """

    label_id: int
    key: str
    position: int | None


class LabelStore:
    """Labels of all indexes, including labels that have left their index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find_names(self, label_ids: Iterable[int]) -> dict[int, str]:
        """Return the names of labels, by id."""
        return self._find_column(func.coalesce(LABEL.c.shown, LABEL.c.name), label_ids)

    def find_keys(self, label_ids: Iterable[int]) -> dict[int, str]:
        """Return the keys of labels, by id."""
        return self._find_column(LABEL.c.name, label_ids)

    def find_places(self, index_id: int, names: Sequence[str]) -> dict[str, list[LabelPlace]]:
        """Return the labels of an index that keys or names refer to.

        The label with a key comes first, before all labels that are printed by that name; labels
        that have left the index are among them.
        """
        by_key: dict[str, list[LabelPlace]] = {}
        by_name: dict[str, list[LabelPlace]] = {}
        with self._database.read() as connection:
            for chunk in iter_chunks(list(dict.fromkeys(names))):
                for column, places in ((LABEL.c.name, by_key), (LABEL.c.shown, by_name)):
                    rows = connection.execute(
                        select(
                            column.label("reference"), LABEL.c.name, LABEL.c.id, LABEL.c.position
                        )
                        .where(LABEL.c.index_id == index_id, column.in_(chunk))
                        .order_by(LABEL.c.id)
                    )
                    for row in rows:
                        place = LabelPlace(row.id, row.name, row.position)
                        places.setdefault(row.reference, []).append(place)
        return {
            name: [*by_key.get(name, ()), *by_name.get(name, ())]
            for name in dict.fromkeys([*by_key, *by_name])
        }

    def _find_column(self, column: ColumnElement[str], label_ids: Iterable[int]) -> dict[int, str]:
        values: dict[int, str] = {}
        with self._database.read() as connection:
            for chunk in iter_chunks(list(dict.fromkeys(label_ids))):
                rows = connection.execute(select(LABEL.c.id, column).where(LABEL.c.id.in_(chunk)))
                values.update(rows.all())
        return values
