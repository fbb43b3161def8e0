"""What the rest of the program asks of the store. Every method is one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    union_all,
    update,
)

from zsic_index.embedding_arrays import Bool, Float32, Int64
from zsic_index.errors import IndexNotFoundError, StoreError
from zsic_index.records import EncoderRecord, IndexInfo
from zsic_index.store import schema
from zsic_index.store.database import Database
from zsic_index.store.location import StoreLocation
from zsic_index.store.photos import PhotoStore
from zsic_index.store.statements import chunks, insert_missing
from zsic_index.store.tables import (
    Calibration,
    Embedding,
    Encoder,
    Label,
    LabelIndex,
    OtherName,
    Taxonomy,
)

VECTOR_DTYPE = np.dtype("<f4")
"""How embeddings lie in the database: little-endian float32."""

_BLOCK = 4_096
"""Embeddings that are read at a time."""


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """A label.

    Attributes:
        label_id: its id.
        name: what it is known by.
        position: its place among the labels of the present generation; None when it has left the
            index.
    """

    label_id: int
    name: str
    position: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An index and its rows.

    Attributes:
        info: the index.
        label_ids: (R,) int64, the label of each row; the rows of one label are together.
        embedding_ids: (R,) int64 in row order.
    """

    info: IndexInfo
    label_ids: Int64
    embedding_ids: Int64


class Store(AbstractContextManager["Store"]):
    """Indexes, labels and label embeddings in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, store: str | Path | None = None, *, create: bool = False) -> Store:
        """Open a store, and check its schema.

        Args:
            store: a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or the user's folder.
            create: whether a missing SQLite file is made; otherwise it is an error.

        Raises:
            StoreError: when it is missing, unreadable or damaged.
            SchemaError: when it has another schema version.
        """
        location = StoreLocation.parse(store)
        if location.path is not None and not location.path.exists():
            if not create:
                raise StoreError(
                    f"there is no store at {location.shown}: "
                    "make one with 'zsic-index build', or name another with --store"
                )
            try:
                location.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{location.path.parent}: {error.strerror}") from error
        database = Database(location)
        schema.ensure(database)
        return cls(database)

    @classmethod
    def upgrade(cls, store: str | Path | None = None) -> tuple[str | None, str]:
        """Bring a store to this program's schema; return the versions before and after."""
        location = StoreLocation.parse(store)
        if location.path is not None:
            location.path.parent.mkdir(parents=True, exist_ok=True)
        database = Database(location)
        try:
            return schema.upgrade(database)
        finally:
            database.close()

    @property
    def location(self) -> StoreLocation:
        """Where the store lies."""
        return self._database.location

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Encoders and embeddings

    def find_encoder(self, fingerprint: str) -> EncoderRecord | None:
        """Return what is known of an encoder, or None."""
        with self._database.read() as connection:
            row = connection.execute(
                select(_ENCODER).where(_ENCODER.c.fingerprint == fingerprint)
            ).one_or_none()
        if row is None:
            return None
        return EncoderRecord(
            row.fingerprint,
            row.model_id,
            row.revision,
            row.dtype,
            row.dim,
            row.logit_scale,
            row.logit_bias,
            row.activation,
            row.loaded_fingerprint,
        )

    def add_encoder(self, record: EncoderRecord) -> None:
        """Write an encoder down, unless it is there."""
        if self.find_encoder(record.fingerprint) is None:
            with self._database.write() as connection:
                insert_missing(connection, _ENCODER, [asdict(record)])

    def embedding_ids(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Return the ids of those fingerprints that the store has an embedding for."""
        with self._database.read() as connection:
            return _ids_of(connection, _EMBEDDING, "fingerprint", fingerprints)

    def add_embeddings(
        self, encoder_fingerprint: str, fingerprints: Sequence[bytes], embeddings: Float32
    ) -> None:
        """Commit one chunk of (n, D) float32 embeddings; known fingerprints are skipped."""
        vectors = np.ascontiguousarray(embeddings, dtype=VECTOR_DTYPE)
        with self._database.write() as connection:
            encoder_id = connection.execute(
                select(_ENCODER.c.id).where(_ENCODER.c.fingerprint == encoder_fingerprint)
            ).scalar_one()
            insert_missing(
                connection,
                _EMBEDDING,
                [
                    {"fingerprint": key, "encoder_id": encoder_id, "vector": vector.tobytes()}
                    for key, vector in zip(fingerprints, vectors, strict=True)
                ],
            )

    def read_embeddings(self, ids: Int64, dim: int) -> Iterator[Float32]:
        """Yield the embeddings of ``ids`` in their order, as (n, dim) float32 blocks.

        Raises:
            StoreError: when one is missing, or not ``4 * dim`` bytes long.
        """
        for start in range(0, len(ids), _BLOCK):
            wanted = ids[start : start + _BLOCK]
            with self._database.read() as connection:
                found = _vectors(connection, wanted)
            block = np.empty((len(wanted), dim), dtype=np.float32)
            for row, embedding_id in enumerate(wanted.tolist()):
                vector = found.get(embedding_id)
                if vector is None or len(vector) != VECTOR_DTYPE.itemsize * dim:
                    raise StoreError(
                        f"store {self.location.shown}: embedding {embedding_id} is "
                        f"{'missing' if vector is None else 'of a wrong length'}: "
                        "restore the store from a backup, or rm the index and build it again"
                    )
                block[row] = np.frombuffer(vector, dtype=VECTOR_DTYPE)
            yield block

    def find_embeddings(self, fingerprints: Sequence[bytes]) -> dict[bytes, Float32]:
        """Return those (D,) embeddings by their fingerprint that the store has."""
        found: dict[bytes, Float32] = {}
        with self._database.read() as connection:
            for chunk in chunks(fingerprints):
                rows = connection.execute(
                    select(_EMBEDDING.c.fingerprint, _EMBEDDING.c.vector).where(
                        _EMBEDDING.c.fingerprint.in_(chunk)
                    )
                )
                found |= {key: np.frombuffer(vector, dtype=VECTOR_DTYPE) for key, vector in rows}
        return found

    @cached_property
    def photos(self) -> PhotoStore:
        """Photo libraries."""
        return PhotoStore(self._database)

    # Indexes

    def indexes(self) -> list[IndexInfo]:
        """Return every index that has been built, by name."""
        with self._database.read() as connection:
            rows = connection.execute(_INDEX_ROWS.order_by(_INDEX.c.name)).all()
        return [_index_info(row) for row in rows]

    def find_index(self, name: str) -> IndexInfo | None:
        """Return one index, or None."""
        with self._database.read() as connection:
            row = connection.execute(_INDEX_ROWS.where(_INDEX.c.name == name)).one_or_none()
        return None if row is None else _index_info(row)

    def index(self, name: str) -> IndexInfo:
        """Return one index.

        Raises:
            IndexNotFoundError: when there is none of that name; the message lists the ones there.
        """
        info = self.find_index(name)
        if info is None:
            names = ", ".join(info.name for info in self.indexes()) or "none yet"
            raise IndexNotFoundError(
                f"no index {name!r} in store {self.location.shown} (it has: {names}): "
                "make it with 'zsic-index build'"
            )
        return info

    def taxonomy(self, digest: str) -> bytes:
        """Return a packed taxonomy.

        Raises:
            StoreError: when it is not there.
        """
        with self._database.read() as connection:
            content = connection.execute(
                select(_TAXONOMY.c.content).where(_TAXONOMY.c.digest == digest)
            ).scalar()
        if content is None:
            raise StoreError(
                f"store {self.location.shown}: taxonomy {digest[:12]} is missing: the index was "
                "built again or removed in the meantime; open it again"
            )
        return bytes(content)

    def keep_calibration(self, info: IndexInfo, content: str | None) -> None:
        """Keep what was fitted for an index in the place of what was there; None for nothing."""
        with self._database.write() as connection:
            connection.execute(delete(_CALIBRATION).where(_CALIBRATION.c.index_id == info.index_id))
            if content is not None:
                kept = {"index_id": info.index_id, "plan": info.plan, "content": content}
                connection.execute(insert(_CALIBRATION), [kept])

    def calibration(self, info: IndexInfo) -> str | None:
        """Return what was fitted for an index, None where nothing was.

        Raises:
            StoreError: when it was fitted for what the index was before.
        """
        with self._database.read() as connection:
            row = connection.execute(
                select(_CALIBRATION).where(_CALIBRATION.c.index_id == info.index_id)
            ).one_or_none()
        if row is None:
            return None
        if row.plan != info.plan:
            raise StoreError(
                f"index {info.name!r} has changed since it was calibrated: calibrate it again"
            )
        return str(row.content)

    def claim_labels(
        self, name: str, labels: Sequence[str], shown: Sequence[str]
    ) -> tuple[int, Int64]:
        """Make sure that an index and rows for its labels exist; nothing is visible to readers yet.

        Args:
            name: the index.
            labels: N distinct names, by which its labels are known.
            shown: N names for people.

        Returns:
            The index's id and (N,) int64 label ids, in the order of ``labels``.
        """
        now = time.time()
        with self._database.write() as connection:
            find_index = select(_INDEX.c.id).where(_INDEX.c.name == name)
            if connection.execute(find_index).scalar() is None:
                fresh_index = {
                    "name": name,
                    "templates": "[]",
                    "generation": 0,
                    "labels": 0,
                    "checksum": "",
                    "created_at": now,
                    "updated_at": now,
                }
                insert_missing(connection, _INDEX, [fresh_index])
            index_id = connection.execute(find_index).scalar_one()
            known = _label_ids(connection, index_id)
            fresh = [
                {"index_id": index_id, "name": label, "shown": _other(label, name_shown)}
                for label, name_shown in zip(labels, shown, strict=True)
                if label not in known
            ]
            if fresh:
                insert_missing(connection, _LABEL, fresh)
                known = _label_ids(connection, index_id)
        return index_id, np.fromiter((known[label] for label in labels), np.int64, len(labels))

    def embedding_ids_by_label(self, index_id: int) -> dict[str, int]:
        """Return the embedding id of every label that is in an index."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_LABEL.c.name, _LABEL.c.embedding_id).where(
                    _LABEL.c.index_id == index_id, _LABEL.c.position.is_not(None)
                )
            )
            return dict(rows.all())

    def keep_plan(self, info: IndexInfo) -> None:
        """Write down what an index of unchanged content was asked to be."""
        with self._database.write() as connection:
            connection.execute(
                update(_INDEX)
                .where(_INDEX.c.id == info.index_id, _INDEX.c.generation == info.generation)
                .values(plan=info.plan)
            )

    def snapshot(self, name: str) -> Snapshot | None:
        """Return an index with its rows, all of one moment, or None when there is none."""
        with self._database.read() as connection:
            row = connection.execute(_INDEX_ROWS.where(_INDEX.c.name == name)).one_or_none()
            if row is None:
                return None
            return Snapshot(_index_info(row), *_rows(connection, row.id))

    def publish(
        self,
        info: IndexInfo,
        label_ids: Int64,
        embedding_ids: Int64,
        labels: Sequence[str],
        shown: Sequence[str],
        taxonomy: bytes | None,
    ) -> bool:
        """Make a new generation of an index the current one, in one transaction.

        Args:
            info: the index as it shall be; ``generation`` is one more than the present one.
            label_ids: (R,) the label of each row; the rows of one label are together.
            embedding_ids: (R,) in row order.
            labels: N names, by which labels are known.
            shown: N names for people.
            taxonomy: what ``info.taxonomy`` is the digest of.

        Returns:
            False, with nothing changed, when another process published in the meantime.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                update(_INDEX)
                .where(_INDEX.c.id == info.index_id, _INDEX.c.generation == info.generation - 1)
                .values(
                    encoder_id=select(_ENCODER.c.id)
                    .where(_ENCODER.c.fingerprint == info.encoder_fingerprint)
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
            if changed.rowcount != 1:
                return False
            self._write_rows(connection, info.index_id, label_ids, embedding_ids)
            _rename(connection, info.index_id, dict(zip(labels, shown, strict=True)))
            if taxonomy is not None:
                kept = {"digest": info.taxonomy, "content": taxonomy}
                insert_missing(connection, _TAXONOMY, [kept])
            _forget_taxonomies(connection)
        return True

    def _write_rows(
        self, connection: Connection, index_id: int, label_ids: Int64, embedding_ids: Int64
    ) -> None:
        """Set position and embeddings where they differ; take labels that are gone out."""
        old_ids, old_embeddings = _rows(connection, index_id)
        old = _first_rows(old_ids, old_embeddings)
        moved: list[dict[str, int | None]] = []
        for label_id, place in _first_rows(label_ids, embedding_ids).items():
            if old.pop(label_id, None) != place:
                moved.append({"key": label_id, "at": place[0], "embedding": place[1]})
        parameters = [*moved, *({"key": key, "at": None, "embedding": None} for key in old)]
        if parameters:
            connection.execute(
                text("UPDATE label SET position = :at, embedding_id = :embedding WHERE id = :key"),
                parameters,
            )
        others = _other_rows(label_ids, embedding_ids)
        if others == _other_rows(old_ids, old_embeddings):
            return
        of_index = select(_LABEL.c.id).where(_LABEL.c.index_id == index_id)
        connection.execute(delete(_OTHER_NAME).where(_OTHER_NAME.c.label_id.in_(of_index)))
        if others:
            connection.execute(insert(_OTHER_NAME), others)

    def label_names(self, label_ids: Iterable[int]) -> dict[int, str]:
        """Return the names of label ids, also of labels that have left their index since."""
        return self._of_labels(_SHOWN, label_ids)

    def label_keys(self, label_ids: Iterable[int]) -> dict[int, str]:
        """Return what labels are known by, also those that have left their index since."""
        return self._of_labels(_LABEL.c.name, label_ids)

    def _of_labels(self, column: ColumnElement[str], label_ids: Iterable[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        with self._database.read() as connection:
            for chunk in chunks(list(dict.fromkeys(label_ids))):
                rows = connection.execute(select(_LABEL.c.id, column).where(_LABEL.c.id.in_(chunk)))
                found.update(rows.all())
        return found

    def label_places(self, index_id: int, names: Sequence[str]) -> dict[str, list[LabelPlace]]:
        """Return where labels are that are, or ever were, in an index.

        A name stands for the label that is known by it, or else for all that are shown by it.
        """
        known: dict[str, list[LabelPlace]] = {}
        shown: dict[str, list[LabelPlace]] = {}
        with self._database.read() as connection:
            for chunk in chunks(list(dict.fromkeys(names))):
                for column, found in ((_LABEL.c.name, known), (_LABEL.c.shown, shown)):
                    rows = connection.execute(
                        select(column.label("said"), _LABEL.c.name, _LABEL.c.id, _LABEL.c.position)
                        .where(_LABEL.c.index_id == index_id, column.in_(chunk))
                        .order_by(_LABEL.c.id)
                    )
                    for row in rows:
                        place = LabelPlace(row.id, row.name, row.position)
                        found.setdefault(row.said, []).append(place)
        return shown | known

    def all_label_names(self, index_id: int) -> list[str]:
        """Return the names of all labels of an index, in row order."""
        with self._database.read() as connection:
            return list(
                connection.execute(
                    select(_SHOWN)
                    .where(_LABEL.c.index_id == index_id, _LABEL.c.position.is_not(None))
                    .order_by(_LABEL.c.position)
                ).scalars()
            )

    def remove(self, name: str, *, prune: bool = False) -> IndexInfo:
        """Delete an index. Its embeddings stay for the next build, unless ``prune``.

        With ``prune``, embeddings that this index used and no other index uses go too.
        """
        info = self.index(name)
        with self._database.write() as connection:
            used = set(_rows(connection, info.index_id)[1].tolist()) if prune else set()
            connection.execute(delete(_LABEL).where(_LABEL.c.index_id == info.index_id))
            connection.execute(delete(_INDEX).where(_INDEX.c.id == info.index_id))
            _forget_taxonomies(connection)
            for chunk in chunks(sorted(used)):
                kept = union_all(
                    *(
                        select(table.c.embedding_id).where(table.c.embedding_id.in_(chunk))
                        for table in (_LABEL, _OTHER_NAME)
                    )
                )
                connection.execute(
                    delete(_EMBEDDING).where(
                        _EMBEDDING.c.id.in_(chunk), _EMBEDDING.c.id.not_in(kept)
                    )
                )
        return info

    def problems(self) -> list[str]:
        """Check the database itself; return one line for each thing that is wrong."""
        found: list[str] = []
        with self._database.read() as connection:
            if connection.dialect.name == "sqlite":
                lines = connection.execute(text("PRAGMA integrity_check")).scalars().all()
                found += [f"integrity_check: {line}" for line in lines if line != "ok"]
                broken = connection.execute(text("PRAGMA foreign_key_check")).all()
                found += [f"{row[0]} row {row[1]} refers to a missing {row[2]}" for row in broken]
            lost = connection.execute(
                select(func.count())
                .select_from(_LABEL)
                .where(_LABEL.c.position.is_not(None), _LABEL.c.embedding_id.is_(None))
            ).scalar_one()
            if lost:
                found.append(f"{lost} labels have a position but no embedding")
            counts = connection.execute(
                select(_INDEX.c.name, _INDEX.c.labels, func.count(_LABEL.c.position))
                .outerjoin(_LABEL, _LABEL.c.index_id == _INDEX.c.id)
                .group_by(_INDEX.c.id, _INDEX.c.name, _INDEX.c.labels)
            )
            found += [
                f"index {name!r} says {said} labels but has {count}"
                for name, said, count in counts
                if said != count
            ]
            others = (
                select(func.count())
                .select_from(_OTHER_NAME.join(_LABEL, _LABEL.c.id == _OTHER_NAME.c.label_id))
                .where(_LABEL.c.index_id == _INDEX.c.id)
                .scalar_subquery()
            )
            said_rows = func.coalesce(_INDEX.c.rows, _INDEX.c.labels)
            found += [
                f"index {name!r} says {said} rows but has {count}"
                for name, said, count in connection.execute(
                    select(_INDEX.c.name, said_rows, _INDEX.c.labels + others)
                )
                if said != count
            ]
        return found


_ENCODER: Table = Encoder.__table__  # type: ignore[assignment]
_EMBEDDING: Table = Embedding.__table__  # type: ignore[assignment]
_INDEX: Table = LabelIndex.__table__  # type: ignore[assignment]
_LABEL: Table = Label.__table__  # type: ignore[assignment]
_TAXONOMY: Table = Taxonomy.__table__  # type: ignore[assignment]
_CALIBRATION: Table = Calibration.__table__  # type: ignore[assignment]
_OTHER_NAME: Table = OtherName.__table__  # type: ignore[assignment]

_SHOWN = func.coalesce(_LABEL.c.shown, _LABEL.c.name)

_INDEX_ROWS = select(
    _INDEX,
    _ENCODER.c.model_id,
    _ENCODER.c.revision,
    _ENCODER.c.dtype,
    _ENCODER.c.fingerprint.label("encoder_fingerprint"),
    _ENCODER.c.dim,
    _ENCODER.c.logit_scale,
    _ENCODER.c.logit_bias,
    _ENCODER.c.activation,
).join(_ENCODER, _ENCODER.c.id == _INDEX.c.encoder_id)
"""Indexes that were published at least once; others are not there for a reader."""


def _index_info(row: Row[Any]) -> IndexInfo:
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


def _rows(connection: Connection, index_id: int) -> tuple[Int64, Int64]:
    """Return (R,) label ids and (R,) embedding ids of an index, in row order."""
    here = (_LABEL.c.index_id == index_id, _LABEL.c.position.is_not(None))
    firsts = connection.execute(
        select(_LABEL.c.position, _LABEL.c.id, _LABEL.c.embedding_id)
        .where(*here)
        .order_by(_LABEL.c.position)
    ).all()
    others = connection.execute(
        select(_LABEL.c.position, _LABEL.c.id, _OTHER_NAME.c.embedding_id)
        .join(_LABEL, _LABEL.c.id == _OTHER_NAME.c.label_id)
        .where(*here)
        .order_by(_LABEL.c.position, _OTHER_NAME.c.place)
    ).all()
    found = np.array([tuple(row) for row in (*firsts, *others)], dtype=np.int64).reshape(-1, 3)
    if others:
        found = found[np.argsort(found[:, 0], kind="stable")]
    return found[:, 1].copy(), found[:, 2].copy()


def _is_first(label_ids: Int64) -> Bool:
    """Tell which of (R,) rows are the first of their label, whose id is above 0."""
    return np.asarray(np.diff(label_ids, prepend=0) != 0)


def _first_rows(label_ids: Int64, embedding_ids: Int64) -> dict[int, tuple[int, int]]:
    """Return the position and the first embedding of each label."""
    first = _is_first(label_ids)
    both = zip(label_ids[first].tolist(), embedding_ids[first].tolist(), strict=True)
    return {label: (position, embedding) for position, (label, embedding) in enumerate(both)}


def _other_rows(label_ids: Int64, embedding_ids: Int64) -> list[dict[str, int]]:
    """Return what ``other_name`` has for the rows that are not the first of their label."""
    first = _is_first(label_ids)
    rows = np.arange(len(label_ids))
    other = rows[~first]
    place = other - np.maximum.accumulate(np.where(first, rows, 0))[other]
    found = np.stack([label_ids[other], place, embedding_ids[other]], axis=1)
    keys = ("label_id", "place", "embedding_id")
    return [dict(zip(keys, row, strict=True)) for row in found.tolist()]


def _other(name: str, shown: str) -> str | None:
    return None if shown == name else shown


def _rename(connection: Connection, index_id: int, shown: dict[str, str]) -> None:
    """Set the names for people of an index's labels where they have changed."""
    rows = connection.execute(
        select(_LABEL.c.id, _LABEL.c.name, _LABEL.c.shown).where(_LABEL.c.index_id == index_id)
    )
    changed = [
        {"key": row.id, "other": _other(row.name, shown[row.name])}
        for row in rows
        if row.name in shown and row.shown != _other(row.name, shown[row.name])
    ]
    if changed:
        connection.execute(text("UPDATE label SET shown = :other WHERE id = :key"), changed)


def _forget_taxonomies(connection: Connection) -> None:
    """Delete taxonomies that no index has any more."""
    used = select(_INDEX.c.taxonomy).where(_INDEX.c.taxonomy.is_not(None))
    connection.execute(delete(_TAXONOMY).where(_TAXONOMY.c.digest.not_in(used)))


def _label_ids(connection: Connection, index_id: int) -> dict[str, int]:
    rows = connection.execute(
        select(_LABEL.c.name, _LABEL.c.id).where(_LABEL.c.index_id == index_id)
    )
    return dict(rows.all())


def _vectors(connection: Connection, ids: Int64) -> dict[int, bytes]:
    """Return the embeddings of some ids, and perhaps of a few between them."""
    chosen = select(_EMBEDDING.c.id, _EMBEDDING.c.vector)
    first, last = int(ids.min()), int(ids.max())
    if last - first < 2 * len(ids):
        # As a build left them, next to each other: a range is read several times faster.
        return dict(connection.execute(chosen.where(_EMBEDDING.c.id.between(first, last))).all())
    found: dict[int, bytes] = {}
    for chunk in chunks(ids.tolist()):
        found.update(connection.execute(chosen.where(_EMBEDDING.c.id.in_(chunk))).all())
    return found


def _ids_of(
    connection: Connection, table: Table, column: str, keys: Sequence[Any]
) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for chunk in chunks(keys):
        rows = connection.execute(
            select(table.c[column], table.c.id).where(table.c[column].in_(chunk))
        )
        found.update(rows.all())
    return found
