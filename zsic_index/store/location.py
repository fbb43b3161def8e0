"""Where a store lies: its database, and the folder of the files derived from it."""

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
    """A database and the folder of its FAISS files.

    Attributes:
        path: the SQLite file; None for other databases.
        url: their SQLAlchemy URL, possibly with a password in it: never print it; else None.
        shown: what to call the store in messages.
        files: folder of the derived FAISS files: beside an SQLite file, else in the user's cache.
    """

    path: Path | None
    url: str | None
    shown: str
    files: Path

    @classmethod
    def parse(cls, store: str | Path | None) -> StoreLocation:
        """Read a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or else the user's folder."""
        if store is None:
            store = os.environ.get(ENVIRONMENT_VARIABLE) or (
                platformdirs.user_data_path("zsic-index", appauthor=False) / "store.db"
            )
        if isinstance(store, str) and "://" in store:
            return cls._of_url(store)
        return cls._of_path(Path(store).expanduser())

    @classmethod
    def _of_path(cls, path: Path) -> StoreLocation:
        path = path.absolute()
        if path.is_dir():
            raise StoreError(
                f"{path} is a folder; --store takes a file such as {path / 'store.db'}"
            )
        return cls(
            path=path,
            url=None,
            shown=str(path),
            files=path.with_name(path.name + ".indexes"),
        )

    @classmethod
    def _of_url(cls, url: str) -> StoreLocation:
        # Imported here: reading a path needs no SQLAlchemy.
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
            return cls._of_path(Path(parsed.database))
        shown = parsed.render_as_string(hide_password=True)
        key = hashlib.sha256(shown.encode()).hexdigest()[:16]
        cache = platformdirs.user_cache_path("zsic-index", appauthor=False)
        return cls(path=None, url=url, shown=shown, files=cache / key)
