"""The store: one database, and an object for each kind of record in it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from zsic_index.errors import StoreError
from zsic_index.store import integrity, schema
from zsic_index.store.database import Database
from zsic_index.store.embeddings import EmbeddingStore
from zsic_index.store.encoders import EncoderStore
from zsic_index.store.indexes import IndexStore
from zsic_index.store.labels import LabelStore
from zsic_index.store.location import StoreLocation
from zsic_index.store.photos import PhotoStore
from zsic_index.store.runs import RunStore
from zsic_index.store.sidecars import SidecarStore
from zsic_index.store.tags import TagStore
from zsic_index.store.verdicts import VerdictStore


class Store(AbstractContextManager["Store"]):
    """A database of indexes and photo libraries.

    Every method of the attributes that changes something does so in one transaction.

    Attributes:
        encoders: encoders that embeddings were made by.
        embeddings: embeddings of labels and images.
        indexes: indexes with their taxonomies and calibrations.
        labels: names and keys of labels.
        photos: photos of libraries.
        tags: tags of photos.
        verdicts: verdicts of the user on tags, and the thresholds that they led to.
        sidecars: sidecars that tags were written to.
        runs: runs of ``tag``.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.encoders = EncoderStore(database)
        self.embeddings = EmbeddingStore(database)
        self.indexes = IndexStore(database)
        self.labels = LabelStore(database)
        self.photos = PhotoStore(database)
        self.tags = TagStore(database)
        self.verdicts = VerdictStore(database)
        self.sidecars = SidecarStore(database)
        self.runs = RunStore(database)

    @classmethod
    def open(cls, store: str | Path | None = None, *, create: bool = False) -> Store:
        """Open a store, and check its schema.

        Args:
            store: a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or the user's folder.
            create: whether a missing SQLite file is created; otherwise it is an error.

        Raises:
            StoreError: when it is missing, unreadable or damaged.
            SchemaError: when it has another schema version.
        """
        location = StoreLocation.parse(store)
        if location.path is not None and not location.path.exists():
            if not create:
                raise StoreError(
                    f"there is no store at {location.name}: "
                    "make one with 'zsic-index build', or name another with --store"
                )
            try:
                location.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{location.path.parent}: {error.strerror}") from error
        database = Database(location)
        schema.ensure_current(database)
        return cls(database)

    @classmethod
    def upgrade(cls, store: str | Path | None = None) -> tuple[str | None, str]:
        """Migrate a store to this program's schema; return the versions before and after."""
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
        """Location of the database and of its index files."""
        return self._database.location

    def find_problems(self) -> list[str]:
        """Check the database; return one line for each problem."""
        return integrity.find_problems(self._database)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def __exit__(self, *_: object) -> None:
        self.close()
