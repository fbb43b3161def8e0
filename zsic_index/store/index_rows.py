"""Rows of an index: the embeddings of its labels, in their order.

A label has one row, or one for each of its names. The first one is kept with the label, the others
in the table ``other_name``. The functions here are steps of a transaction of ``IndexStore``.
"""

from __future__ import annotations

import numpy as np
from sqlalchemy import Connection, delete, insert, select, text

from zsic_index.embedding_arrays import Bool, Int64
from zsic_index.store.tables import LABEL, OTHER_NAME


def read_rows(connection: Connection, index_id: int) -> tuple[Int64, Int64]:
    """Return the (R,) label ids and (R,) embedding ids of an index, in row order."""
    of_index = (LABEL.c.index_id == index_id, LABEL.c.position.is_not(None))
    first_rows = connection.execute(
        select(LABEL.c.position, LABEL.c.id, LABEL.c.embedding_id)
        .where(*of_index)
        .order_by(LABEL.c.position)
    ).all()
    other_rows = connection.execute(
        select(LABEL.c.position, LABEL.c.id, OTHER_NAME.c.embedding_id)
        .join(LABEL, LABEL.c.id == OTHER_NAME.c.label_id)
        .where(*of_index)
        .order_by(LABEL.c.position, OTHER_NAME.c.place)
    ).all()
    rows = np.array([tuple(row) for row in (*first_rows, *other_rows)], dtype=np.int64)
    rows = rows.reshape(-1, 3)
    if other_rows:
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return rows[:, 1].copy(), rows[:, 2].copy()


def write_rows(
    connection: Connection, index_id: int, label_ids: Int64, embedding_ids: Int64
) -> None:
    """Replace the rows of an index by (R,) label ids and (R,) embedding ids.

    Only labels whose position or embedding changes are updated; labels without a
    row lose their position.
    """
    old_label_ids, old_embedding_ids = read_rows(connection, index_id)
    old_places = _find_first_rows(old_label_ids, old_embedding_ids)
    parameters: list[dict[str, int | None]] = []
    for label_id, place in _find_first_rows(label_ids, embedding_ids).items():
        if old_places.pop(label_id, None) != place:
            parameters.append({"key": label_id, "at": place[0], "embedding": place[1]})
    # What is left in old_places are labels that have left the index.
    parameters += [{"key": label_id, "at": None, "embedding": None} for label_id in old_places]
    if parameters:
        connection.execute(
            text("UPDATE label SET position = :at, embedding_id = :embedding WHERE id = :key"),
            parameters,
        )
    other_rows = _make_other_rows(label_ids, embedding_ids)
    if other_rows == _make_other_rows(old_label_ids, old_embedding_ids):
        return
    of_index = select(LABEL.c.id).where(LABEL.c.index_id == index_id)
    connection.execute(delete(OTHER_NAME).where(OTHER_NAME.c.label_id.in_(of_index)))
    if other_rows:
        connection.execute(insert(OTHER_NAME), other_rows)


def _mark_first(label_ids: Int64) -> Bool:
    """Return a (R,) mask of the rows that are the first of their label; ids are above 0."""
    return np.asarray(np.diff(label_ids, prepend=0) != 0)


def _find_first_rows(label_ids: Int64, embedding_ids: Int64) -> dict[int, tuple[int, int]]:
    """Return the position and the first embedding id of each label, by label id."""
    first = _mark_first(label_ids)
    pairs = zip(label_ids[first].tolist(), embedding_ids[first].tolist(), strict=True)
    return {
        label_id: (position, embedding_id)
        for position, (label_id, embedding_id) in enumerate(pairs)
    }


def _make_other_rows(label_ids: Int64, embedding_ids: Int64) -> list[dict[str, int]]:
    """Return the rows of ``other_name`` for rows that are not the first of their label."""
    first = _mark_first(label_ids)
    rows = np.arange(len(label_ids))
    other = rows[~first]
    place = other - np.maximum.accumulate(np.where(first, rows, 0))[other]
    values = np.stack([label_ids[other], place, embedding_ids[other]], axis=1)
    keys = ("label_id", "place", "embedding_id")
    return [dict(zip(keys, row, strict=True)) for row in values.tolist()]
