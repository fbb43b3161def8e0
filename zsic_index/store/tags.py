"""Tags of photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import or_, select, update

from zsic_index.store.database import Database
from zsic_index.store.photo_records import StoredTag, TagKey
from zsic_index.store.statements import iter_chunks
from zsic_index.store.tables import PHOTO_TAG, TAG_RUN
from zsic_index.store.tag_rows import (
    delete_decisions,
    delete_tags,
    dump_path,
    load_path,
    read_tags,
    update_digests,
)


class TagStore:
    """Tags, by photo. ``PhotoStore.record`` adds them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, photo_ids: Sequence[int]) -> dict[int, list[StoredTag]]:
        """Return the tags of each photo, most probable first; an empty list for a photo without."""
        with self._database.read() as connection:
            return read_tags(connection, photo_ids)

    def find_keys(
        self,
        *,
        run_id: str | None = None,
        paths: Sequence[tuple[str, ...]] | None = None,
        model_id: str | None = None,
        name: str | None = None,
    ) -> dict[int, list[TagKey]]:
        """Return the keys of tags that meet all conditions, by photo id.

        Args:
            run_id: the run that gave them, or that first wrote them to a sidecar.
            paths: paths that they may have.
            model_id: the checkpoint of the run that gave them.
            name: the index of the run that gave them.
        """
        query = select(PHOTO_TAG.c.photo_id, PHOTO_TAG.c.index_id, PHOTO_TAG.c.path).join(
            TAG_RUN, TAG_RUN.c.id == PHOTO_TAG.c.run_id
        )
        if run_id is not None:
            query = query.where(or_(PHOTO_TAG.c.run_id == run_id, PHOTO_TAG.c.written_by == run_id))
        if paths is not None:
            query = query.where(PHOTO_TAG.c.path.in_([dump_path(path) for path in paths]))
        if model_id is not None:
            query = query.where(TAG_RUN.c.model_id == model_id)
        if name is not None:
            query = query.where(TAG_RUN.c.index_name == name)
        keys: dict[int, list[TagKey]] = defaultdict(list)
        with self._database.read() as connection:
            for row in connection.execute(query.order_by(PHOTO_TAG.c.photo_id)):
                keys[row.photo_id].append((row.index_id, load_path(row.path)))
        return keys

    def find_paths(self, label: str) -> list[tuple[str, ...]]:
        """Return the paths whose last part, or whole with ``/``, is ``label``, ignoring case."""
        with self._database.read() as connection:
            contents = connection.execute(select(PHOTO_TAG.c.path).distinct()).scalars()
            paths = [load_path(content) for content in contents]
        folded = label.casefold()
        return [
            path for path in paths if folded in (path[-1].casefold(), "/".join(path).casefold())
        ]

    def remove(self, keys: Mapping[int, Sequence[TagKey]]) -> None:
        """Delete tags, given by photo id, and all decisions about these photos."""
        with self._database.write() as connection:
            delete_tags(
                connection,
                [(photo_id, *key) for photo_id, of_photo in keys.items() for key in of_photo],
            )
            delete_decisions(connection, list(keys))
            update_digests(connection, list(keys))

    def mark_written(self, photo_ids: Sequence[int], run_id: str) -> None:
        """Record a run as the first that writes the tags of photos, where none did before."""
        with self._database.write() as connection:
            for chunk in iter_chunks(photo_ids):
                connection.execute(
                    update(PHOTO_TAG)
                    .where(PHOTO_TAG.c.photo_id.in_(chunk), PHOTO_TAG.c.written_by.is_(None))
                    .values(written_by=run_id)
                )
