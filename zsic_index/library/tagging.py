"""A run over photo libraries: walk, look up or embed, decide, record, write.

The walk, the vision tower and what is recorded overlap: files are read and decoded in threads, a
batch ahead of the tower; what came out of it is decided about and committed in a thread of its own.
Nothing that is held grows with the library; the largest folder's names are.

A run that was killed is taken up by the next one that is asked the same. What was committed is not
done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zsic_index.embeddings.images import EmbeddedImage
from zsic_index.errors import ImageError, MissingExtraError, StoreError
from zsic_index.label_index import LabelIndex
from zsic_index.library.run_lock import run_lock
from zsic_index.library.run_report import Change, RunReport
from zsic_index.library.run_settings import RunSettings
from zsic_index.library.sidecars.writer import SidecarWriter, Wanted
from zsic_index.library.tag_rules import TagRules
from zsic_index.library.walk import FoundFolder, FoundPhoto, walk
from zsic_index.parallel import batched
from zsic_index.store.photo_records import (
    PhotoOutcome,
    Run,
    SidecarRow,
    StoredPhoto,
    StoredTag,
    subtract_tags,
)

_AT_ONCE = 1_024
"""Photos whose embeddings are looked up, and that are recorded, together."""

_WAITING = 4
"""Batches that may wait to be recorded."""

_STRAY_AFTER_S = 300.0
"""How old a temporary file must be for the run that made it to be dead."""

_REMEMBERED = 1_000
"""Lines about single files that a report holds at most; all are counted."""


class RootGoneError(StoreError):
    """A root has gone while it was read: a drive that was unplugged, a share that is down."""


Progress = Callable[[Counter[str]], None]


@dataclass(frozen=True, slots=True)
class _Item:
    """A photo that is to be decided about."""

    root: str
    folder: FoundFolder
    photo: FoundPhoto
    known: StoredPhoto | None

    @property
    def path(self) -> str:
        return os.path.join(self.folder.path, self.photo.name)  # noqa: PTH118


class Tagging:
    """One run."""

    def __init__(
        self,
        index: LabelIndex,
        rules: TagRules,
        settings: RunSettings,
        *,
        folders: Collection[str] | None = None,
        dry_run: bool = False,
        on_change: Callable[[Change], None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            index: opened with ``keep_images``.
            rules: what tags photos get of it.
            settings: what is asked.
            folders: those below the roots that are looked at; None for all.
            dry_run: whether only to tell what would change. Embeddings are kept all the same.
            on_change: called for every photo whose tags change.
            progress: called with the counts so far.
        """
        self._index = index
        self._index_id = index.info.index_id
        self._store = index.store
        self._rules = rules
        self._settings = settings
        self._folders = folders
        self._dry_run = dry_run
        self._on_change = on_change
        self._progress = progress
        self._embedder = index.encoder.image_embedder()
        self._report = RunReport()
        self._ready: list[_Item] = []
        self._embedding: deque[_Item] = deque()
        self._counting = threading.Lock()

    def run(self) -> RunReport:
        """Do it.

        Raises:
            RootGoneError: when a root goes away meanwhile; what was recorded stays, and the next
                run goes on from there.
            ModelError: when an image has to be embedded and the model cannot be loaded.
            StoreError: when another run is at work, or the store cannot be written.
        """
        started = time.perf_counter()
        with run_lock(self._index.store.location.files):
            run = self._start()
            self._writer = SidecarWriter(
                self._store,
                {one.run_id: one for one in self._store.runs.all()},
                style=self._settings.style,
                both=self._settings.both,
            )
            with ThreadPoolExecutor(1, thread_name_prefix="zsic-record") as recording:
                self._recording = recording
                self._recorded: deque[Future[None]] = deque()
                try:
                    for batch in self._embedder.stream(self._to_embed()):
                        items = [self._embedding.popleft() for _ in batch]
                        self._submit(items, batch, "embedded")
                    self._wait(0)
                except BaseException:
                    for future in self._recorded:
                        future.cancel()
                    raise
            if not self._dry_run:
                self._store.runs.finish(run.run_id, "done", dict(self._report.counts))
        self._report.seconds = time.perf_counter() - started
        return self._report

    def _start(self) -> Run:
        info = self._index.info
        asked: dict[str, Any] = asdict(self._settings) | {"rules": self._rules.digest.hex()}
        digest = hashlib.sha256(json.dumps([info.name, asked], sort_keys=True).encode()).hexdigest()
        fresh = Run(
            run_id=f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}",
            digest=digest,
            index_name=info.name,
            model_id=info.model_id,
            taxonomy=info.taxonomy or info.plan,
            settings=asked,
            started_at=time.time(),
        )
        if self._dry_run:
            return fresh
        run = self._store.runs.start(fresh)
        self._report.run_id, self._report.resumed = run.run_id, run.run_id != fresh.run_id
        return run

    # The walk

    def _to_embed(self) -> Iterator[str]:
        """Walk; yield the paths of photos that have to be read, in the order of ``_embedding``."""
        left = self._settings.limit
        for item in self._to_read():
            if left == 0:
                self._skip(item.path, f"over the limit of {self._settings.limit} for this run")
                self._count(_files(item) - 1, "skipped")
                continue
            left = None if left is None else left - 1
            self._embedding.append(item)
            yield item.path

    def _to_read(self) -> Iterator[_Item]:
        for root in self._settings.roots:
            identity = _identity(root)
            walked: set[str] = set()
            whole, found, gone = self._folders is None, 0, []
            for folder in walk(root, self._settings.exclude, self._folders):
                walked.add(folder.path)
                if folder.unread is not None:
                    whole = False
                    self._note(f"{folder.path}: cannot be listed: {folder.unread}")
                    continue
                found += len(folder.photos)
                known = self._store.photos.find_in_folder(folder.path, self._index_id)
                gone += _gone(folder, known)
                yield from self._in_folder(root, folder, known)
            yield from self._look_up()
            if _identity(root) != identity:
                raise _root_gone(root)
            if whole:
                self._look_for_missing(root, walked, gone, found)

    def _in_folder(
        self, root: str, folder: FoundFolder, known: dict[str, StoredPhoto]
    ) -> Iterator[_Item]:
        if self._settings.write == "sidecar" and not self._dry_run:
            _remove_strays(folder)
        for name, why in folder.skipped:
            self._skip(os.path.join(folder.path, name), why)  # noqa: PTH118
        same = {
            photo.name: row
            for photo in folder.photos
            if (row := known.get(photo.name)) is not None
            and (row.size, row.mtime_ns) == (photo.size, photo.mtime_ns)
        }
        back = [row.photo_id for row in same.values() if row.missing_since is not None]
        if back and not self._dry_run:
            self._store.photos.set_missing(back, missing_since=None)
        settled = self._settled(list(same.values()))
        for photo in folder.photos:
            item = _Item(root, folder, photo, same.get(photo.name))
            if item.known is None:
                yield item
            elif item.known.problem is not None:
                if self._settings.retry:
                    yield item
                else:
                    self._refuse(item, item.known.problem)
            elif item.known.photo_id in settled:
                self._count(1, "unchanged")
                self._count(len(photo.companions), "paired")
            else:
                self._ready.append(item)
        if len(self._ready) >= _AT_ONCE:
            yield from self._look_up()
        self._show()

    def _settled(self, photos: Sequence[StoredPhoto]) -> set[int]:
        """Return the ids of photos that nothing is to be done for."""
        decided = [
            one
            for one in photos
            if one.content_hash is not None
            and one.decision is not None
            and one.decision == self._decision(one.content_hash)
        ]
        if self._settings.write == "none":
            return {one.photo_id for one in decided}
        rows = self._store.sidecars.find([one.photo_id for one in decided])
        return {one.photo_id for one in decided if _is_written(one, rows.get(one.photo_id, []))}

    def _look_up(self) -> Iterator[_Item]:
        """Record photos that have an embedding already; yield the others."""
        items, self._ready = self._ready, []
        hashes = [_hash(item) for item in items]
        keys = [self._embedder.fingerprint_image(content) for content in hashes]
        found = self._index.store.embeddings.find(keys)
        have: list[tuple[_Item, EmbeddedImage]] = []
        for item, content, key in zip(items, hashes, keys, strict=True):
            if key in found:
                have.append((item, EmbeddedImage(found[key], content)))
            else:
                yield item
        for part in batched(have, _AT_ONCE):
            self._submit([item for item, _ in part], [one for _, one in part], "reused")

    def _look_for_missing(
        self, root: str, walked: set[str], gone: list[StoredPhoto], found: int
    ) -> None:
        """Note which photos are not there any more, unless the root looks unmounted."""
        folders = [
            folder for folder in self._store.photos.find_folders(root) if folder not in walked
        ]
        if not found and (gone or folders):
            self._report.root_problems.append(
                f"{root}: has no photos now, and had some before: is its drive mounted? They are "
                "kept as they are"
            )
            return
        for folder in folders:
            gone += self._store.photos.find_in_folder(folder, self._index_id).values()
        missing = [
            one.photo_id
            for one in gone
            if one.missing_since is None and not os.path.lexists(one.path)
        ]
        self._report.counts["missing"] += len(missing)
        if missing and not self._dry_run:
            self._store.photos.set_missing(missing, missing_since=time.time())

    # What came of it

    def _submit(
        self, items: list[_Item], found: Sequence[EmbeddedImage | ImageError], how: str
    ) -> None:
        self._wait(_WAITING)
        self._recorded.append(self._recording.submit(self._record, items, found, how))

    def _wait(self, most: int) -> None:
        """Wait until no more than ``most`` batches are left to be recorded."""
        while len(self._recorded) > most:
            self._recorded.popleft().result()

    def _record(
        self, items: list[_Item], found: Sequence[EmbeddedImage | ImageError], how: str
    ) -> None:
        embedded = [
            (item, one)
            for item, one in zip(items, found, strict=True)
            if isinstance(one, EmbeddedImage)
        ]
        hashes = [_content(one) for _, one in embedded]
        verdicts = self._store.verdicts.find(hashes)
        embeddings = np.array([one.embedding for _, one in embedded], dtype=np.float32)
        tags = iter(self._rules.decide(embeddings, [verdicts.get(one, {}) for one in hashes]))
        looked, kept = [], []
        for item, one in zip(items, found, strict=True):
            if isinstance(one, EmbeddedImage):
                content = _content(one)
                decision = self._decision(content)
                looked.append(_looked(item, content, None, next(tags), decision))
                kept.append(item)
                self._count(1, how)
                self._count(len(item.photo.companions), "paired")
            elif self._refused(item, one):
                looked.append(_looked(item, None, str(one), (), None))
                kept.append(item)
        if self._dry_run:
            self._compare(kept, looked)
        else:
            self._commit(kept, looked)
        self._show()

    def _refused(self, item: _Item, error: ImageError) -> bool:
        """Count a refused file; tell whether that is to be remembered of it."""
        if isinstance(error, MissingExtraError):
            self._skip(item.path, str(error).removeprefix(f"{item.path}: "))
            self._count(len(item.photo.companions), "skipped")
            return False
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            # The drive's fault, not the file's: it is tried again next time.
            if not os.path.isdir(item.root):  # noqa: PTH112
                raise _root_gone(item.root)
            self._refuse(item, str(error))
            return False
        self._refuse(item, str(error))
        return True

    def _compare(self, items: Sequence[_Item], looked: Sequence[PhotoOutcome]) -> None:
        ids = [item.known.photo_id for item in items if item.known is not None]
        stored = self._store.tags.find(ids)
        for item, one in zip(items, looked, strict=True):
            if one.problem is not None:
                continue
            tags = stored[item.known.photo_id] if item.known is not None else []
            had = [tag for tag in tags if tag.index_id == self._index_id]
            self._changed(item, subtract_tags(one.tags, had), subtract_tags(had, one.tags))

    def _commit(self, items: Sequence[_Item], looked: Sequence[PhotoOutcome]) -> None:
        recorded = self._store.photos.record(looked, self._index_id, self._report.run_id)
        for item, one in zip(items, recorded, strict=True):
            self._changed(item, one.added, one.withdrawn)
        if self._settings.write == "none":
            return
        ids = [one.photo_id for one in recorded]
        tags = self._store.tags.find(ids)
        wanted = [
            _wanted(item, one.content_hash, photo_id, tags[photo_id])
            for item, one, photo_id in zip(items, looked, ids, strict=True)
            if one.problem is None
        ]
        self._store.tags.mark_written([one.photo_id for one in wanted], self._report.run_id)
        self._report.sidecars.add(self._writer.write(wanted))

    def _changed(
        self, item: _Item, added: tuple[StoredTag, ...], withdrawn: tuple[StoredTag, ...]
    ) -> None:
        if not added and not withdrawn:
            return
        counts = self._report.counts
        counts["photos_changed"] += 1
        counts["tags_added"] += len(added)
        counts["tags_withdrawn"] += len(withdrawn)
        if self._on_change:
            self._on_change(Change(item.path, added, withdrawn))

    def _decision(self, content_hash: bytes) -> bytes:
        return self._rules.decision(self._embedder.fingerprint_image(content_hash))

    def _refuse(self, item: _Item, why: str) -> None:
        path = item.path
        self._note(why if why.startswith(path) else f"{path}: {why}")
        self._count(_files(item), "refused")

    def _skip(self, path: str, why: str) -> None:
        self._note(f"{path}: skipped: {why}")
        self._count(1, "skipped")

    def _note(self, line: str) -> None:
        with self._counting:
            self._report.counts["problems"] += 1
            if len(self._report.problems) < _REMEMBERED:
                self._report.problems.append(" ".join(line.split()))

    def _count(self, number: int, how: str) -> None:
        counts = self._report.counts
        with self._counting:
            counts["inputs"] += number
            counts[how] += number
            if how not in ("refused", "skipped"):
                counts["done"] += number

    def _show(self) -> None:
        if self._progress:
            self._progress(self._report.counts)


def _files(item: _Item) -> int:
    return 1 + len(item.photo.companions)


def _identity(root: str) -> tuple[int, int] | None:
    try:
        found = os.stat(root)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _root_gone(root: str) -> RootGoneError:
    return RootGoneError(
        f"{root}: has gone while it was read: what was done is kept, and nothing is taken for "
        "deleted; mount it again and run the same command"
    )


def _remove_strays(folder: FoundFolder) -> None:
    """Remove temporary files that are too old for any run to be still writing them."""
    for name in folder.strays:
        path = Path(folder.path) / name
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STRAY_AFTER_S:
                path.unlink()


def _gone(folder: FoundFolder, known: dict[str, StoredPhoto]) -> list[StoredPhoto]:
    if not known:
        return []
    here = {photo.name for photo in folder.photos}
    return [row for name, row in known.items() if name not in here and row.missing_since is None]


def _is_written(photo: StoredPhoto, rows: Sequence[SidecarRow]) -> bool:
    """Whether a photo's sidecars have its tags, and are as they were left."""
    if not rows:
        return not photo.tags_digest
    return all(row.tags_digest == photo.tags_digest and row.is_unchanged() for row in rows)


def _hash(item: _Item) -> bytes:
    assert item.known is not None, "it has not changed"
    assert item.known.content_hash is not None, "it was not refused"
    return item.known.content_hash


def _content(embedded: EmbeddedImage) -> bytes:
    assert embedded.content_hash is not None, "the index keeps images"
    return embedded.content_hash


def _looked(
    item: _Item,
    content_hash: bytes | None,
    problem: str | None,
    tags: Sequence[StoredTag],
    decision: bytes | None,
) -> PhotoOutcome:
    photo = item.photo
    return PhotoOutcome(
        item.folder.path,
        photo.name,
        photo.size,
        photo.mtime_ns,
        content_hash,
        problem,
        tags,
        decision,
    )


def _wanted(
    item: _Item, content_hash: bytes | None, photo_id: int, tags: Sequence[StoredTag]
) -> Wanted:
    folder = Path(item.folder.path)
    companions = tuple(folder / name for name in item.photo.companions)
    photo = folder / item.photo.name
    return Wanted(photo_id, content_hash, photo, companions, item.folder.names, tuple(tags))
