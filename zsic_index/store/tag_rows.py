"""Tags and decisions of photos in the database.

The functions here are steps of transactions of ``PhotoStore``, ``TagStore`` and ``VerdictStore``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, delete, select, text

from zsic_index.store.photo_records import StoredTag, digest_tags
from zsic_index.store.statements import iter_chunks
from zsic_index.store.tables import PHOTO_DECISION, PHOTO_TAG


# The same few paths come again on every photo.
@lru_cache(maxsize=1 << 16)
def dump_path(path: tuple[str, ...]) -> str:
    """Return a tag's path as it is stored, a JSON list."""
    return json.dumps(path, ensure_ascii=False)


@lru_cache(maxsize=1 << 16)
def load_path(content: str) -> tuple[str, ...]:
    """Return a tag's path from a JSON list."""
    return tuple(json.loads(content))


def read_tags(connection: Connection, photo_ids: Sequence[int]) -> dict[int, list[StoredTag]]:
    """Return the tags of each photo, most probable first; an empty list for a photo without."""
    tags: dict[int, list[StoredTag]] = {photo_id: [] for photo_id in photo_ids}
    for chunk in iter_chunks(photo_ids):
        rows = connection.execute(
            select(PHOTO_TAG)
            .where(PHOTO_TAG.c.photo_id.in_(chunk))
            .order_by(PHOTO_TAG.c.probability.desc(), PHOTO_TAG.c.path)
        )
        for row in rows:
            tag = StoredTag(
                row.index_id, load_path(row.path), row.label_id, row.probability, row.run_id
            )
            tags[row.photo_id].append(tag)
    return tags


def make_tag_row(photo_id: int, tag: StoredTag, run_id: str) -> dict[str, Any]:
    """Return the row of ``photo_tag`` for a tag that a run gave."""
    return {
        "photo_id": photo_id,
        "index_id": tag.index_id,
        "path": dump_path(tag.path),
        "label_id": tag.label_id,
        "probability": tag.probability,
        "run_id": run_id,
    }


def delete_tags(connection: Connection, keys: Sequence[tuple[int, int, tuple[str, ...]]]) -> None:
    """Delete tags, each given by photo id, index id and path."""
    if keys:
        connection.execute(
            text(
                "DELETE FROM photo_tag "
                "WHERE photo_id = :photo AND index_id = :index AND path = :path"
            ),
            [
                {"photo": photo_id, "index": index_id, "path": dump_path(path)}
                for photo_id, index_id, path in keys
            ],
        )


def delete_decisions(connection: Connection, photo_ids: Sequence[int]) -> None:
    """Delete all decisions about photos, so that the next run decides again."""
    for chunk in iter_chunks(photo_ids):
        connection.execute(delete(PHOTO_DECISION).where(PHOTO_DECISION.c.photo_id.in_(chunk)))


def update_digests(connection: Connection, photo_ids: Sequence[int]) -> None:
    """Set the digests of photos to those of the tags that they have now."""
    tags = read_tags(connection, photo_ids)
    set_digests(
        connection, {photo_id: digest_tags(of_photo) for photo_id, of_photo in tags.items()}
    )


def set_digests(connection: Connection, digests: Mapping[int, str]) -> None:
    """Set the digests of photos, by id."""
    if digests:
        connection.execute(
            text("UPDATE photo SET tags_digest = :digest WHERE id = :photo"),
            [{"photo": photo_id, "digest": digest} for photo_id, digest in digests.items()],
        )
