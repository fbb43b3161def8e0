"""Verdicts of the user on tags, and the thresholds of labels that they led to."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from sqlalchemy import Connection, delete, func, select, text

from zsic_index.store.database import Database
from zsic_index.store.photo_records import LabelCounts, VerdictName
from zsic_index.store.photos import is_under
from zsic_index.store.statements import iter_chunks, upsert
from zsic_index.store.tables import LABEL_THRESHOLD, PHOTO, PHOTO_TAG, VERDICT
from zsic_index.store.tag_rows import delete_decisions, update_digests


class VerdictStore:
    """Verdicts on labels, by content, so that copies of a photo share them; and thresholds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, content_hashes: Iterable[bytes]) -> dict[bytes, dict[int, VerdictName]]:
        """Return the verdicts on contents, by content hash and label id."""
        verdicts: dict[bytes, dict[int, VerdictName]] = defaultdict(dict)
        with self._database.read() as connection:
            for chunk in iter_chunks(list(dict.fromkeys(content_hashes))):
                rows = connection.execute(select(VERDICT).where(VERDICT.c.content_hash.in_(chunk)))
                for row in rows:
                    verdicts[row.content_hash][row.label_id] = row.verdict
        return verdicts

    def find_by_label(self, label_id: int) -> dict[bytes, VerdictName]:
        """Return the verdicts on a label, by content hash."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(VERDICT.c.content_hash, VERDICT.c.verdict).where(
                    VERDICT.c.label_id == label_id
                )
            )
            return dict(rows.all())

    def count_by_label(self, index_id: int, under: str | None = None) -> dict[int, LabelCounts]:
        """Return the numbers of tagged photos and of verdicts, by label id.

        Args:
            index_id: the index whose tags are counted; verdicts are counted for all indexes.
            under: only photos in and below this folder.
        """
        present = PHOTO.c.missing_since.is_(None)
        among = present if under is None else present & is_under(under)
        tag_counts = (
            select(PHOTO_TAG.c.label_id, func.count())
            .join(PHOTO, PHOTO.c.id == PHOTO_TAG.c.photo_id)
            .where(PHOTO_TAG.c.index_id == index_id, PHOTO_TAG.c.label_id.is_not(None), among)
            .group_by(PHOTO_TAG.c.label_id)
        )
        verdict_counts = (
            select(VERDICT.c.label_id, VERDICT.c.verdict, func.count())
            .where(VERDICT.c.content_hash.in_(select(PHOTO.c.content_hash).where(among)))
            .group_by(VERDICT.c.label_id, VERDICT.c.verdict)
        )
        counts: dict[int, dict[str, int]] = defaultdict(dict)
        with self._database.read() as connection:
            for label_id, number in connection.execute(tag_counts):
                counts[label_id]["tagged"] = number
            for label_id, verdict, number in connection.execute(verdict_counts):
                counts[label_id][verdict] = number
        return {label_id: LabelCounts(**numbers) for label_id, numbers in counts.items()}

    def save(
        self,
        verdicts: Iterable[tuple[bytes, int, VerdictName | None]],
        *,
        source: Literal["sidecar", "review"],
    ) -> None:
        """Save verdicts, each given by content hash and label id; None deletes one.

        All decisions about photos with these contents are deleted, so that the next run decides
        again. Rejected tags are deleted at once.
        """
        by_key = {(content, label_id): verdict for content, label_id, verdict in verdicts}
        now = time.time()
        with self._database.write() as connection:
            upsert(
                connection,
                VERDICT,
                [
                    {
                        "content_hash": content,
                        "label_id": label_id,
                        "verdict": verdict,
                        "source": source,
                        "at": now,
                    }
                    for (content, label_id), verdict in by_key.items()
                    if verdict is not None
                ],
            )
            for (content, label_id), verdict in by_key.items():
                if verdict is None:
                    connection.execute(
                        delete(VERDICT).where(
                            VERDICT.c.content_hash == content, VERDICT.c.label_id == label_id
                        )
                    )
            photo_ids = _read_ids_by_content(connection, [content for content, _ in by_key])
            delete_decisions(
                connection, [photo_id for ids in photo_ids.values() for photo_id in ids]
            )
            rejected = [
                (photo_id, label_id)
                for (content, label_id), verdict in by_key.items()
                if verdict == "rejected"
                for photo_id in photo_ids.get(content, ())
            ]
            if rejected:
                connection.execute(
                    text("DELETE FROM photo_tag WHERE photo_id = :photo AND label_id = :label"),
                    [{"photo": photo_id, "label": label_id} for photo_id, label_id in rejected],
                )
            update_digests(connection, sorted({photo_id for photo_id, _ in rejected}))

    def find_thresholds(self, index_id: int) -> dict[int, float]:
        """Return the thresholds of an index's labels that have one, by label id."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(LABEL_THRESHOLD.c.label_id, LABEL_THRESHOLD.c.threshold)
                .where(LABEL_THRESHOLD.c.index_id == index_id)
                .order_by(LABEL_THRESHOLD.c.label_id)
            )
            return dict(rows.all())

    def set_threshold(self, index_id: int, label_id: int, threshold: float | None) -> None:
        """Set the threshold of a label; None deletes it."""
        with self._database.write() as connection:
            connection.execute(
                delete(LABEL_THRESHOLD).where(LABEL_THRESHOLD.c.label_id == label_id)
            )
            if threshold is not None:
                row = {"label_id": label_id, "index_id": index_id, "threshold": threshold}
                upsert(connection, LABEL_THRESHOLD, [row])


def _read_ids_by_content(
    connection: Connection, content_hashes: Sequence[bytes]
) -> dict[bytes, list[int]]:
    """Return the ids of the photos with each content."""
    ids: dict[bytes, list[int]] = defaultdict(list)
    for chunk in iter_chunks(list(dict.fromkeys(content_hashes))):
        rows = connection.execute(
            select(PHOTO.c.content_hash, PHOTO.c.id).where(PHOTO.c.content_hash.in_(chunk))
        )
        for content, photo_id in rows:
            ids[content].append(photo_id)
    return ids
