"""Taking tags back: from the sidecars that we wrote, then from the store.

Sidecars come first: after a kill the store still has what is left to be taken back. A photo whose
sidecar cannot be written keeps its tags in the store, for the next try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zsic_index.library.run_lock import run_lock
from zsic_index.library.sidecars.writer import SidecarWriter, Wanted, Written
from zsic_index.parallel import batched
from zsic_index.store import Store
from zsic_index.store.photo_records import TagKey

_AT_ONCE = 256


@dataclass(slots=True)
class UndoReport:
    """What was taken back.

    Attributes:
        photos: photos that have lost tags.
        tags: how many.
        sidecars: what became of their sidecars.
    """

    photos: int = 0
    tags: int = 0
    sidecars: Written = field(default_factory=Written)


def undo(store: Store, keys: Mapping[int, Sequence[TagKey]]) -> UndoReport:
    """Take tags back.

    Args:
        store: where they are.
        keys: which, as ``TagStore.find_keys`` has them.

    Raises:
        StoreError: when a run is at work, or the store cannot be written.
    """
    report = UndoReport()
    with run_lock(store.location.files):
        writer = SidecarWriter(store, {run.run_id: run for run in store.runs.all()})
        for part in batched(keys, _AT_ONCE):
            known, tags = store.photos.find_by_id(part), store.tags.find(part)
            written = writer.write(
                [
                    Wanted(
                        photo_id,
                        known[photo_id].content_hash,
                        Path(known[photo_id].path),
                        (),
                        None,
                        tuple(
                            tag
                            for tag in tags[photo_id]
                            if (tag.index_id, tag.path) not in keys[photo_id]
                        ),
                    )
                    for photo_id in part
                ]
            )
            report.sidecars.add(written)
            done = {key: keys[key] for key in part if key not in written.failed}
            store.tags.remove(done)
            report.photos += len(done)
            report.tags += sum(map(len, done.values()))
    return report
