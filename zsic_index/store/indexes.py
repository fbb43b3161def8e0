"""Indexes: their generations, labels, taxonomies and calibrations."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, delete, insert, select, text, union_all, update

from zsic_index.embedding_arrays import Int64
from zsic_index.errors import IndexNotFoundError, StoreError
from zsic_index.records import IndexInfo
from zsic_index.store.database import Database
from zsic_index.store.index_rows import read_rows, write_rows
from zsic_index.store.statements import insert_missing, iter_chunks
from zsic_index.store.tables import (
    CALIBRATION,
    EMBEDDING,
    ENCODER,
    LABEL,
    LABEL_INDEX,
    OTHER_NAME,
    TAXONOMY,
)


@dataclass(frozen=True, slots=True)
class IndexSnapshot:
    """An index and its rows, read in one transaction.

    Attributes:
        info: the index.
        label_ids: (R,) int64, the label of each row; the rows of one label are consecutive.
        embedding_ids: (R,) int64 in row order.
    """

    info: IndexInfo
    label_ids: Int64
    embedding_ids: Int64


class IndexStore:
    """Indexes, by name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[IndexInfo]:
        """Return every published index, by name."""
        with self._database.read() as connection:
            rows = connection.execute(_PUBLISHED.order_by(LABEL_INDEX.c.name)).all()
        return [_load_index_info(row) for row in rows]

    def find(self, name: str) -> IndexInfo | None:
        """Return an index, or None."""
        with self._database.read() as connection:
            row = connection.execute(_PUBLISHED.where(LABEL_INDEX.c.name == name)).one_or_none()
        return None if row is None else _load_index_info(row)

    def get(self, name: str) -> IndexInfo:
        """Return an index.

        Raises:
            IndexNotFoundError: when there is no index of that name; the message lists the names
                that exist.
        """
        info = self.find(name)
        if info is None:
            names = ", ".join(info.name for info in self.all()) or "none yet"
            raise IndexNotFoundError(
                f"no index {name!r} in store {self._database.location.name} (it has: {names}): "
                "make it with 'zsic-index build'"
            )
        return info

    def read_snapshot(self, name: str) -> IndexSnapshot | None:
        """Return an index with its rows, or None."""
        with self._database.read() as connection:
            row = connection.execute(_PUBLISHED.where(LABEL_INDEX.c.name == name)).one_or_none()
            if row is None:
                return None
            return IndexSnapshot(_load_index_info(row), *read_rows(connection, row.id))

    def read_taxonomy(self, digest: str) -> bytes:
        """Return the packed taxonomy with that sha256.

        Raises:
            StoreError: when it is missing.
        """
        with self._database.read() as connection:
            content = connection.execute(
                select(TAXONOMY.c.content).where(TAXONOMY.c.digest == digest)
            ).scalar()
        if content is None:
            raise StoreError(
                f"store {self._database.location.name}: taxonomy {digest[:12]} is missing: the "
                "index was built again or removed in the meantime; open it again"
            )
        return bytes(content)

    def save_calibration(self, info: IndexInfo, content: str | None) -> None:
        """Replace the calibration of an index; None deletes it."""
        with self._database.write() as connection:
            connection.execute(delete(CALIBRATION).where(CALIBRATION.c.index_id == info.index_id))
            if content is not None:
                row = {"index_id": info.index_id, "plan": info.plan, "content": content}
                connection.execute(insert(CALIBRATION), [row])

    def read_calibration(self, info: IndexInfo) -> str | None:
        """Return the calibration of an index, or None.

        Raises:
            StoreError: when the index has changed since it was calibrated.
        """
        with self._database.read() as connection:
            row = connection.execute(
                select(CALIBRATION).where(CALIBRATION.c.index_id == info.index_id)
            ).one_or_none()
        if row is None:
            return None
        if row.plan != info.plan:
            raise StoreError(
                f"index {info.name!r} has changed since it was calibrated: calibrate it again"
            )
        return str(row.content)

    def find_embedding_ids(self, index_id: int) -> dict[str, int]:
        """Return the embedding ids of an index's labels, by key."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(LABEL.c.name, LABEL.c.embedding_id).where(
                    LABEL.c.index_id == index_id, LABEL.c.position.is_not(None)
                )
            )
            return dict(rows.all())

    def claim_labels(
        self, name: str, keys: Sequence[str], names: Sequence[str]
    ) -> tuple[int, Int64]:
        """Reserve ids for an index and its labels, which readers do not see until ``publish``.

        Args:
            name: the index.
            keys: keys of N labels, all different.
            names: names of N labels.

        Returns:
            The index's id and (N,) int64 label ids, in the order of ``keys``.
        """
        now = time.time()
        with self._database.write() as connection:
            find_index = select(LABEL_INDEX.c.id).where(LABEL_INDEX.c.name == name)
            if connection.execute(find_index).scalar() is None:
                new_index = {
                    "name": name,
                    "templates": "[]",
                    "generation": 0,
                    "labels": 0,
                    "checksum": "",
                    "created_at": now,
                    "updated_at": now,
                }
                insert_missing(connection, LABEL_INDEX, [new_index])
            index_id = connection.execute(find_index).scalar_one()
            ids = _read_label_ids(connection, index_id)
            new_labels = [
                {"index_id": index_id, "name": key, "shown": _dump_name(key, label_name)}
                for key, label_name in zip(keys, names, strict=True)
                if key not in ids
            ]
            if new_labels:
                insert_missing(connection, LABEL, new_labels)
                ids = _read_label_ids(connection, index_id)
        return index_id, np.fromiter((ids[key] for key in keys), np.int64, len(keys))

    def save_plan(self, info: IndexInfo) -> None:
        """Update the plan of an index whose content is unchanged."""
        with self._database.write() as connection:
            connection.execute(
                update(LABEL_INDEX)
                .where(LABEL_INDEX.c.id == info.index_id)
                .where(LABEL_INDEX.c.generation == info.generation)
                .values(plan=info.plan)
            )

    def publish(
        self,
        info: IndexInfo,
        label_ids: Int64,
        embedding_ids: Int64,
        keys: Sequence[str],
        names: Sequence[str],
        taxonomy: bytes | None,
    ) -> bool:
        """Make a new generation of an index the current one, in one transaction.

        Args:
            info: the new index; its ``generation`` is one more than the current one.
            label_ids: (R,) the label of each row; the rows of one label are consecutive.
            embedding_ids: (R,) in row order.
            keys: keys of the N labels.
            names: names of the N labels.
            taxonomy: packed taxonomy, of which ``info.taxonomy`` is the digest.

        Returns:
            False, with nothing changed, when another process has published in the meantime.
        """
        with self._database.write() as connection:
            updated = connection.execute(
                update(LABEL_INDEX)
                .where(LABEL_INDEX.c.id == info.index_id)
                .where(LABEL_INDEX.c.generation == info.generation - 1)
                .values(
                    encoder_id=select(ENCODER.c.id)
                    .where(ENCODER.c.fingerprint == info.encoder_fingerprint)
                    .scalar_subquery(),
                    templates=json.dumps(info.templates, ensure_ascii=False),
                    kind=info.kind,
                    names=info.name_pooling,
                    generation=info.generation,
                    labels=info.labels,
                    rows=None if info.rows == info.labels else info.rows,
                    checksum=info.checksum,
                    taxonomy=info.taxonomy,
                    plan=info.plan,
                    updated_at=info.updated_at,
                )
            )
            if updated.rowcount != 1:
                return False
            write_rows(connection, info.index_id, label_ids, embedding_ids)
            _rename_labels(connection, info.index_id, dict(zip(keys, names, strict=True)))
            if taxonomy is not None:
                row = {"digest": info.taxonomy, "content": taxonomy}
                insert_missing(connection, TAXONOMY, [row])
            _delete_unused_taxonomies(connection)
        return True

    def remove(self, name: str, *, prune: bool = False) -> IndexInfo:
        """Delete an index; return what it was.

        Its embeddings stay for the next build. With ``prune``, those that no other index uses are
        deleted as well.

        Raises:
            IndexNotFoundError: when there is no index of that name.
        """
        info = self.get(name)
        with self._database.write() as connection:
            used = set(read_rows(connection, info.index_id)[1].tolist()) if prune else set()
            connection.execute(delete(LABEL).where(LABEL.c.index_id == info.index_id))
            connection.execute(delete(LABEL_INDEX).where(LABEL_INDEX.c.id == info.index_id))
            _delete_unused_taxonomies(connection)
            for chunk in iter_chunks(sorted(used)):
                still_used = union_all(
                    *(
                        select(table.c.embedding_id).where(table.c.embedding_id.in_(chunk))
                        for table in (LABEL, OTHER_NAME)
                    )
                )
                connection.execute(
                    delete(EMBEDDING).where(
                        EMBEDDING.c.id.in_(chunk), EMBEDDING.c.id.not_in(still_used)
                    )
                )
        return info


_PUBLISHED = select(
    LABEL_INDEX,
    ENCODER.c.model_id,
    ENCODER.c.revision,
    ENCODER.c.dtype,
    ENCODER.c.fingerprint.label("encoder_fingerprint"),
    ENCODER.c.dim,
    ENCODER.c.logit_scale,
    ENCODER.c.logit_bias,
    ENCODER.c.activation,
).join(ENCODER, ENCODER.c.id == LABEL_INDEX.c.encoder_id)
"""Indexes that were published at least once: only claimed ones have no encoder yet."""


def _load_index_info(row: Row[Any]) -> IndexInfo:
    return IndexInfo(
        index_id=row.id,
        name=row.name,
        model_id=row.model_id,
        revision=row.revision,
        dtype=row.dtype,
        encoder_fingerprint=row.encoder_fingerprint,
        templates=tuple(json.loads(row.templates)),
        kind=row.kind,
        name_pooling=row.names,
        labels=row.labels,
        rows=row.labels if row.rows is None else row.rows,
        dim=row.dim,
        logit_scale=row.logit_scale,
        logit_bias=row.logit_bias,
        activation=row.activation,
        generation=row.generation,
        checksum=row.checksum,
        taxonomy=row.taxonomy,
        plan=row.plan,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _dump_name(key: str, name: str) -> str | None:
    """Return the column ``shown`` of a label: NULL where its name is its key."""
    return None if name == key else name


def _rename_labels(connection: Connection, index_id: int, names: dict[str, str]) -> None:
    """Update the names of an index's labels, given by key, where they have changed."""
    rows = connection.execute(
        select(LABEL.c.id, LABEL.c.name, LABEL.c.shown).where(LABEL.c.index_id == index_id)
    )
    changed = [
        {"key": row.id, "other": _dump_name(row.name, names[row.name])}
        for row in rows
        if row.name in names and row.shown != _dump_name(row.name, names[row.name])
    ]
    if changed:
        connection.execute(text("UPDATE label SET shown = :other WHERE id = :key"), changed)


def _delete_unused_taxonomies(connection: Connection) -> None:
    used = select(LABEL_INDEX.c.taxonomy).where(LABEL_INDEX.c.taxonomy.is_not(None))
    connection.execute(delete(TAXONOMY).where(TAXONOMY.c.digest.not_in(used)))


def _read_label_ids(connection: Connection, index_id: int) -> dict[str, int]:
    """Return the ids of labels that are, or ever were, in an index, by key."""
    rows = connection.execute(select(LABEL.c.name, LABEL.c.id).where(LABEL.c.index_id == index_id))
    return dict(rows.all())
