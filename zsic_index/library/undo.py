"""Take tags back: from the sidecars that they were written to, then from the store.

Sidecars come first: after a kill the store still has the tags that are left to take back. A photo
whose sidecar cannot be written keeps its tags in the store, for the next try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zsic_index.library.run_lock import run_lock
from zsic_index.library.sidecars.writer import SidecarWriter, TaggedPhoto, WriteReport
from zsic_index.parallel import batched
from zsic_index.store import Store
from zsic_index.store.photo_records import StoredPhoto, StoredTag, TagKey

_BATCH = 256
"""Number of photos whose tags are taken back together."""


@dataclass(slots=True)
class UndoReport:
    """Outcome of taking tags back.

    Attributes:
        photos: number of photos that have lost tags.
        tags: number of tags taken back.
        sidecars: outcome of writing their sidecars.
    """

    photos: int = 0
    tags: int = 0
    sidecars: WriteReport = field(default_factory=WriteReport)


def undo(store: Store, keys: Mapping[int, Sequence[TagKey]]) -> UndoReport:
    """Take tags back.

    Args:
        store: the store of the tags.
        keys: the tags to take back, by photo id; see ``TagStore.find_keys``.

    Raises:
        StoreError: when a run is at work, or the store cannot be written.
    """
    report = UndoReport()
    with run_lock(store.location.files):
        writer = SidecarWriter(store, {run.run_id: run for run in store.runs.all()})
        for photo_ids in batched(keys, _BATCH):
            photos, tags = store.photos.find_by_id(photo_ids), store.tags.find(photo_ids)
            written = writer.write(
                [
                    _without(photos[photo_id], tags[photo_id], keys[photo_id])
                    for photo_id in photo_ids
                ]
            )
            report.sidecars.add(written)
            done = {key: keys[key] for key in photo_ids if key not in written.failed}
            store.tags.remove(done)
            report.photos += len(done)
            report.tags += sum(map(len, done.values()))
    return report


def _without(photo: StoredPhoto, tags: Sequence[StoredTag], keys: Sequence[TagKey]) -> TaggedPhoto:
    """Return a photo with its tags except some, to be written to the sidecars it already has."""
    left = tuple(tag for tag in tags if (tag.index_id, tag.path) not in keys)
    return TaggedPhoto(photo.photo_id, photo.content_hash, Path(photo.path), (), None, left)
