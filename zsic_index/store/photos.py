"""Photos of libraries."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from zsic_index.store.database import Database
from zsic_index.store.photo_records import (
    PhotoOutcome,
    RecordedPhoto,
    StoredPhoto,
    digest_tags,
    subtract_tags,
)
from zsic_index.store.statements import insert_missing, iter_chunks, upsert
from zsic_index.store.tables import PHOTO, PHOTO_DECISION, PHOTO_TAG, SIDECAR, VERDICT
from zsic_index.store.tag_rows import delete_tags, make_tag_row, read_tags, set_digests

_PAGE = 1_000
"""Photos read per transaction."""


class PhotoStore:
    """Photos, by path or id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, folder: str, name: str) -> StoredPhoto | None:
        """Return a photo, or None."""
        photos = self._read([PHOTO.c.folder == folder, PHOTO.c.name == name], 0)
        return photos[0] if photos else None

    def find_by_id(self, photo_ids: Sequence[int]) -> dict[int, StoredPhoto]:
        """Return photos by id."""
        photos: dict[int, StoredPhoto] = {}
        for chunk in iter_chunks(photo_ids):
            photos |= {photo.photo_id: photo for photo in self._read([PHOTO.c.id.in_(chunk)], 0)}
        return photos

    def find_in_folder(self, folder: str, index_id: int) -> dict[str, StoredPhoto]:
        """Return the photos of a folder by name, with the decisions of an index."""
        return {photo.name: photo for photo in self._read([PHOTO.c.folder == folder], index_id)}

    def find_folders(self, root: str | None) -> list[str]:
        """Return the folders that have photos which are not missing.

        Args:
            root: only folders at and below this one; None for all.
        """
        condition: ColumnElement[bool] = PHOTO.c.missing_since.is_(None)
        if root is not None:
            condition &= is_under(root)
        with self._database.read() as connection:
            rows = connection.execute(select(PHOTO.c.folder).distinct().where(condition))
            return list(rows.scalars())

    def iterate(
        self, *, index_id: int = 0, under: str | None = None, present: bool = True
    ) -> Iterator[StoredPhoto]:
        """Yield photos in the order of their ids; each page of 1,000 is one transaction.

        Args:
            index_id: the index whose decisions the photos have.
            under: only photos in and below this folder.
            present: only photos that are not missing.
        """
        last_id = 0
        while True:
            conditions: list[ColumnElement[bool]] = [PHOTO.c.id > last_id]
            if under is not None:
                conditions.append(is_under(under))
            if present:
                conditions.append(PHOTO.c.missing_since.is_(None))
            page = self._read(conditions, index_id, limit=_PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            last_id = page[-1].photo_id

    def count(self) -> dict[str, int]:
        """Return the numbers of photos by state, and of their tags, sidecars and verdicts."""
        present = PHOTO.c.missing_since.is_(None)
        tagged = select(PHOTO_TAG.c.photo_id)
        conditions = {
            "photos": present,
            "tagged": present & PHOTO.c.id.in_(tagged),
            "refused": present & PHOTO.c.problem.is_not(None),
            "missing": PHOTO.c.missing_since.is_not(None),
        }
        with self._database.read() as connection:
            counts = {
                name: connection.execute(
                    select(func.count()).select_from(PHOTO).where(condition)
                ).scalar_one()
                for name, condition in conditions.items()
            }
            for name, table in (("tags", PHOTO_TAG), ("sidecars", SIDECAR), ("verdicts", VERDICT)):
                counts[name] = connection.execute(
                    select(func.count()).select_from(table)
                ).scalar_one()
        return counts

    def record(
        self, outcomes: Sequence[PhotoOutcome], index_id: int, run_id: str
    ) -> list[RecordedPhoto]:
        """Save the outcomes of a run, and replace the photos' tags of one index by those in them.

        A tag that a photo had already keeps the run that gave it. A refused photo keeps its tags.
        """
        if not outcomes:
            return []
        with self._database.write() as connection:
            ids = _save_photos(connection, outcomes)
            tags_before = read_tags(connection, list(ids.values()))
            deleted: list[tuple[int, int, tuple[str, ...]]] = []
            tag_rows: list[dict[str, Any]] = []
            decisions: list[dict[str, Any]] = []
            recorded: list[RecordedPhoto] = []
            for outcome in outcomes:
                photo_id = ids[outcome.folder, outcome.name]
                before = {
                    tag.path: tag for tag in tags_before[photo_id] if tag.index_id == index_id
                }
                after = {tag.path: tag for tag in outcome.tags}
                if outcome.problem is not None:
                    after = before
                elif outcome.decision is not None:
                    decisions.append(
                        {"photo_id": photo_id, "index_id": index_id, "digest": outcome.decision}
                    )
                added = subtract_tags(after.values(), before.values())
                withdrawn = subtract_tags(before.values(), after.values())
                deleted += [(photo_id, index_id, tag.path) for tag in withdrawn]
                for path, tag in after.items():
                    old = before.get(path)
                    if old is None:
                        tag_rows.append(make_tag_row(photo_id, tag, run_id))
                    elif (old.label_id, old.probability) != (tag.label_id, tag.probability):
                        tag_rows.append(make_tag_row(photo_id, tag, old.run_id))
                others = [tag for tag in tags_before[photo_id] if tag.index_id != index_id]
                digest = digest_tags([*others, *after.values()])
                recorded.append(RecordedPhoto(photo_id, added, withdrawn, digest))
            delete_tags(connection, deleted)
            upsert(connection, PHOTO_TAG, tag_rows)
            upsert(connection, PHOTO_DECISION, decisions)
            set_digests(connection, {photo.photo_id: photo.tags_digest for photo in recorded})
        return recorded

    def set_missing(self, photo_ids: Sequence[int], *, missing_since: float | None) -> None:
        """Mark photos as missing since a time in seconds since 1970, or (None) as present."""
        with self._database.write() as connection:
            for chunk in iter_chunks(photo_ids):
                connection.execute(
                    update(PHOTO).where(PHOTO.c.id.in_(chunk)).values(missing_since=missing_since)
                )

    def _read(
        self, conditions: Sequence[ColumnElement[bool]], index_id: int, limit: int | None = None
    ) -> list[StoredPhoto]:
        decided = PHOTO_DECISION.c.photo_id == PHOTO.c.id
        query = (
            select(*_PHOTO_COLUMNS, PHOTO_DECISION.c.digest)
            .outerjoin(PHOTO_DECISION, decided & (PHOTO_DECISION.c.index_id == index_id))
            .where(*conditions)
            .order_by(PHOTO.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [StoredPhoto(*tuple(row)) for row in connection.execute(query)]


_PHOTO_COLUMNS = tuple(
    PHOTO.c[name]
    for name in (
        "id", "folder", "name", "size", "mtime_ns", "content_hash", "problem", "missing_since",
        "tags_digest",
    )
)  # fmt: skip


def is_under(root: str) -> ColumnElement[bool]:
    """Return the condition that a photo is in or below a folder."""
    prefix = os.path.join(root, "")  # noqa: PTH118
    return or_(PHOTO.c.folder == root, PHOTO.c.folder.startswith(prefix, autoescape=True))


def _save_photos(
    connection: Connection, outcomes: Sequence[PhotoOutcome]
) -> dict[tuple[str, str], int]:
    """Insert or update the photos of outcomes; return their ids by folder and name."""
    names = [(outcome.folder, outcome.name) for outcome in outcomes]
    ids = _read_photo_ids(connection, names)
    updated: list[dict[str, Any]] = []
    inserted: list[dict[str, Any]] = []
    for outcome, name in zip(outcomes, names, strict=True):
        row = {
            "folder": outcome.folder,
            "name": outcome.name,
            "size": outcome.size,
            "mtime_ns": outcome.mtime_ns,
            "content_hash": outcome.content_hash,
            "problem": outcome.problem,
            "missing_since": None,
        }
        if name in ids:
            updated.append(row | {"id": ids[name]})
        else:
            inserted.append(row)
    upsert(connection, PHOTO, updated)
    if not inserted:
        return ids
    insert_missing(connection, PHOTO, inserted)
    return _read_photo_ids(connection, names)


def _read_photo_ids(
    connection: Connection, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Return the ids of photos that exist, by folder and name."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for folder, name in names:
        by_folder[folder].append(name)
    ids: dict[tuple[str, str], int] = {}
    for folder, of_folder in by_folder.items():
        for chunk in iter_chunks(of_folder):
            rows = connection.execute(
                select(PHOTO.c.name, PHOTO.c.id).where(
                    PHOTO.c.folder == folder, PHOTO.c.name.in_(chunk)
                )
            )
            ids |= {(folder, name): photo_id for name, photo_id in rows}
    return ids
