"""Sidecars that tags were written to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import delete, select

from zsic_index.store.database import Database
from zsic_index.store.photo_records import SidecarRow
from zsic_index.store.statements import iter_chunks, upsert
from zsic_index.store.tables import SIDECAR


class SidecarStore:
    """Sidecars, by path."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, photo_ids: Sequence[int]) -> dict[int, list[SidecarRow]]:
        """Return the sidecars of photos, by photo id."""
        sidecars: dict[int, list[SidecarRow]] = defaultdict(list)
        with self._database.read() as connection:
            for chunk in iter_chunks(photo_ids):
                rows = connection.execute(select(SIDECAR).where(SIDECAR.c.photo_id.in_(chunk)))
                for row in rows:
                    sidecars[row.photo_id].append(SidecarRow(**row._mapping))
        return sidecars

    def find_by_content(self, fingerprint: str) -> SidecarRow | None:
        """Return a sidecar by the sha256 of its content, or None: it may have been moved."""
        with self._database.read() as connection:
            row = connection.execute(
                select(SIDECAR).where(SIDECAR.c.written == fingerprint).limit(1)
            ).one_or_none()
        return None if row is None else SidecarRow(**row._mapping)

    def save(self, rows: Sequence[SidecarRow]) -> None:
        """Insert or update sidecars."""
        with self._database.write() as connection:
            upsert(
                connection,
                SIDECAR,
                [{name: getattr(row, name) for name in SidecarRow.__slots__} for row in rows],
            )

    def remove(self, paths: Sequence[str]) -> None:
        """Delete the records of sidecars; no file is touched."""
        with self._database.write() as connection:
            for chunk in iter_chunks(paths):
                connection.execute(delete(SIDECAR).where(SIDECAR.c.path.in_(chunk)))
