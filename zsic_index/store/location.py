"""Location of a store: its database, and the folder of the index files derived from it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from zsic_index.errors import StoreError

ENVIRONMENT_VARIABLE = "ZSIC_STORE"


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """A database and the folder of its index files.

    Attributes:
        path: the SQLite file; None for other databases.
        url: SQLAlchemy URL of another database, which may contain a password: never print it; None
            for SQLite.
        name: the store's name in messages, without a password.
        files: folder of the index files: beside an SQLite file, else in the user's cache.
    """

    path: Path | None
    url: str | None
    name: str
    files: Path

    @classmethod
    def parse(cls, store: str | Path | None) -> StoreLocation:
        """Parse a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or else the user's folder."""
        if store is None:
            store = os.environ.get(ENVIRONMENT_VARIABLE) or (
                platformdirs.user_data_path("zsic-index", appauthor=False) / "store.db"
            )
        if isinstance(store, str) and "://" in store:
            return cls._from_url(store)
        return cls._from_path(Path(store).expanduser())

    @classmethod
    def _from_path(cls, path: Path) -> StoreLocation:
        path = path.absolute()
        if path.is_dir():
            raise StoreError(
                f"{path} is a folder; --store takes a file such as {path / 'store.db'}"
            )
        return cls(
            path=path,
            url=None,
            name=str(path),
            files=path.with_name(path.name + ".indexes"),
        )

    @classmethod
    def _from_url(cls, url: str) -> StoreLocation:
        # Imported here because a path needs no SQLAlchemy.
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise StoreError(
                "--store is not a database URL; an example: postgresql+psycopg://user@host/database"
            ) from error
        if parsed.get_backend_name() == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise StoreError("a store in memory cannot be shared or kept: give a file's path")
            return cls._from_path(Path(parsed.database))
        name = parsed.render_as_string(hide_password=True)
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        cache = platformdirs.user_cache_path("zsic-index", appauthor=False)
        return cls(path=None, url=url, name=name, files=cache / digest)
