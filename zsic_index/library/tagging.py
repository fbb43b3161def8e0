"""A run over photo libraries: walk, look up or embed, decide, record, write.

The walk, the vision tower and recording overlap: files are read and decoded in threads, a batch
ahead of the tower; a thread of its own decides about embedded photos and commits the outcome.
Memory does not grow with the library; it does with its largest folder's names.

A run that was killed is continued by the next one with the same settings. Whatever was committed is
not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from zsic_index.embeddings.images import EmbeddedImage
from zsic_index.errors import ImageError, MissingExtraError
from zsic_index.library.due import DuePhoto, DuePhotos, RootGoneError
from zsic_index.library.run_lock import run_lock
from zsic_index.library.run_report import PhotoChange, RunReport
from zsic_index.library.run_settings import RunSettings
from zsic_index.library.sidecars.writer import SidecarWriter, TaggedPhoto
from zsic_index.library.tag_rules import TagRules
from zsic_index.store.photo_records import PhotoOutcome, Run, StoredTag, subtract_tags

_BATCH = 1_024
"""Number of photos whose embeddings are looked up, and that are recorded, together."""

_MAX_WAITING = 4
"""Largest number of batches that wait to be recorded."""


class Tagging:
    """One run over the photo libraries of a store."""

    def __init__(
        self,
        rules: TagRules,
        settings: RunSettings,
        *,
        folders: Collection[str] | None = None,
        dry_run: bool = False,
        on_change: Callable[[PhotoChange], None] | None = None,
        progress: Callable[[Counter[str]], None] | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            rules: rules that decide about tags; their index was opened with ``keep_images``.
            settings: settings of the run.
            folders: folders below the roots to look at; None for all.
            dry_run: whether changes are only reported. New embeddings are stored all the same.
            on_change: called for every photo whose tags change.
            progress: called with the counts so far.
        """
        self._rules = rules
        self._info = rules.index.info
        self._store = rules.index.store
        self._embedder = rules.index.encoder.image_embedder()
        self._settings = settings
        self._dry_run = dry_run
        self._on_change = on_change
        self._progress = progress
        self._report = RunReport()
        self._due = DuePhotos(
            self._store,
            self._info.index_id,
            settings,
            self._decision,
            self._report,
            folders=folders,
            dry_run=dry_run,
            on_folder=self._show_progress,
        )
        self._embedding: deque[DuePhoto] = deque()

    def run(self) -> RunReport:
        """Tag the photos.

        Raises:
            RootGoneError: when a root disappears meanwhile; recorded photos stay recorded, and the
                next run continues from there.
            ModelError: when an image has to be embedded and the model cannot be loaded.
            StoreError: when another run is at work, or the store cannot be written.
        """
        started = time.perf_counter()
        with run_lock(self._store.location.files):
            run = self._start()
            self._writer = SidecarWriter(
                self._store,
                {run.run_id: run for run in self._store.runs.all()},
                style=self._settings.style,
                both=self._settings.both,
            )
            with ThreadPoolExecutor(1, thread_name_prefix="zsic-record") as recorder:
                self._recorder = recorder
                self._recording: deque[Future[None]] = deque()
                try:
                    for batch in self._embedder.stream(self._paths_to_embed()):
                        photos = [self._embedding.popleft() for _ in batch]
                        self._submit(photos, batch, "embedded")
                    self._wait(0)
                except BaseException:
                    for future in self._recording:
                        future.cancel()
                    raise
            if not self._dry_run:
                self._store.runs.finish(run.run_id, "done", dict(self._report.counts))
        self._report.seconds = time.perf_counter() - started
        return self._report

    def _start(self) -> Run:
        info = self._info
        settings: dict[str, Any] = asdict(self._settings) | {"rules": self._rules.digest.hex()}
        content = json.dumps([info.name, settings], sort_keys=True)
        new = Run(
            run_id=f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}",
            digest=hashlib.sha256(content.encode()).hexdigest(),
            index_name=info.name,
            model_id=info.model_id,
            taxonomy=info.taxonomy or info.plan,
            settings=settings,
            started_at=time.time(),
        )
        if self._dry_run:
            return new
        run = self._store.runs.start(new)
        self._report.run_id, self._report.resumed = run.run_id, run.run_id != new.run_id
        return run

    # Photos to embed

    def _paths_to_embed(self) -> Iterator[str]:
        """Walk; yield the paths of photos to embed, and append these to ``_embedding``."""
        limit = self._settings.limit
        number = 0
        for photo in self._without_embedding():
            if number == limit:
                reason = f"over the limit of {limit} for this run"
                self._report.skip(photo.path, reason, photo.files)
                continue
            number += 1
            self._embedding.append(photo)
            yield photo.path

    def _without_embedding(self) -> Iterator[DuePhoto]:
        """Record the due photos whose embeddings are stored; yield the others."""
        ready: list[tuple[DuePhoto, bytes]] = []
        for photo in self._due:
            if photo.content_hash is None:
                yield photo
                continue
            ready.append((photo, photo.content_hash))
            if len(ready) == _BATCH:
                yield from self._reuse(ready)
                ready = []
        yield from self._reuse(ready)

    def _reuse(self, photos: Sequence[tuple[DuePhoto, bytes]]) -> Iterator[DuePhoto]:
        """Record photos whose embeddings are stored; yield the others.

        Args:
            photos: photos, each with the hash of its content.
        """
        keys = [self._embedder.fingerprint_image(content_hash) for _, content_hash in photos]
        embeddings = self._store.embeddings.find(keys)
        stored: list[tuple[DuePhoto, EmbeddedImage]] = []
        for (photo, content_hash), key in zip(photos, keys, strict=True):
            if key in embeddings:
                stored.append((photo, EmbeddedImage(embeddings[key], content_hash)))
            else:
                yield photo
        if stored:
            self._submit(
                [photo for photo, _ in stored], [embedded for _, embedded in stored], "reused"
            )

    # Recording

    def _submit(
        self, photos: list[DuePhoto], batch: Sequence[EmbeddedImage | ImageError], outcome: str
    ) -> None:
        """Hand photos over to be recorded, with their embeddings or the errors instead."""
        self._wait(_MAX_WAITING)
        self._recording.append(self._recorder.submit(self._record, photos, batch, outcome))

    def _wait(self, number: int) -> None:
        """Wait until at most ``number`` batches are still to be recorded."""
        while len(self._recording) > number:
            self._recording.popleft().result()

    def _record(
        self, photos: list[DuePhoto], batch: Sequence[EmbeddedImage | ImageError], outcome: str
    ) -> None:
        embedded = [entry for entry in batch if isinstance(entry, EmbeddedImage)]
        hashes = [_content_hash(entry) for entry in embedded]
        verdicts = self._store.verdicts.find(hashes)
        embeddings = np.array([entry.embedding for entry in embedded], dtype=np.float32)
        tags = iter(self._rules.decide(embeddings, [verdicts.get(key, {}) for key in hashes]))
        recorded: list[tuple[DuePhoto, PhotoOutcome]] = []
        for photo, entry in zip(photos, batch, strict=True):
            if isinstance(entry, EmbeddedImage):
                content_hash = _content_hash(entry)
                decision = self._decision(content_hash)
                recorded.append((photo, _tagged(photo, content_hash, next(tags), decision)))
                self._report.count(1, outcome)
                self._report.count(photo.files - 1, "paired")
            elif self._refuse(photo, entry):
                recorded.append((photo, _refused(photo, str(entry))))
        if self._dry_run:
            self._compare(recorded)
        else:
            self._commit(recorded)
        self._show_progress()

    def _refuse(self, photo: DuePhoto, error: ImageError) -> bool:
        """Count a refused photo; tell whether the refusal is to be recorded."""
        if isinstance(error, MissingExtraError):
            reason = str(error).removeprefix(f"{photo.path}: ")
            self._report.skip(photo.path, reason, photo.files)
            return False
        cause = error.__cause__
        # An error of the drive says nothing about the file: the next run tries it again.
        is_of_drive = isinstance(cause, OSError) and cause.errno is not None
        if is_of_drive and not os.path.isdir(photo.root):  # noqa: PTH112
            raise RootGoneError(photo.root)
        self._report.refuse(photo.path, str(error), photo.files)
        return not is_of_drive

    def _compare(self, recorded: Sequence[tuple[DuePhoto, PhotoOutcome]]) -> None:
        """Report the changes of a dry run."""
        stored_tags = self._store.tags.find(
            [photo.stored.photo_id for photo, _ in recorded if photo.stored is not None]
        )
        for photo, outcome in recorded:
            if outcome.problem is not None:
                continue
            tags = stored_tags[photo.stored.photo_id] if photo.stored is not None else []
            before = [tag for tag in tags if tag.index_id == self._info.index_id]
            self._report_change(
                photo, subtract_tags(outcome.tags, before), subtract_tags(before, outcome.tags)
            )

    def _commit(self, recorded: Sequence[tuple[DuePhoto, PhotoOutcome]]) -> None:
        """Store outcomes, and write sidecars where that is wanted."""
        run_id = self._report.run_id
        outcomes = [outcome for _, outcome in recorded]
        changes = self._store.photos.record(outcomes, self._info.index_id, run_id)
        for (photo, _), change in zip(recorded, changes, strict=True):
            self._report_change(photo, change.added, change.withdrawn)
        if self._settings.write == "none":
            return
        tags = self._store.tags.find([change.photo_id for change in changes])
        tagged = [
            _with_tags(photo, change.photo_id, outcome.content_hash, tags[change.photo_id])
            for (photo, outcome), change in zip(recorded, changes, strict=True)
            if outcome.problem is None
        ]
        self._store.tags.mark_written([photo.photo_id for photo in tagged], run_id)
        self._report.sidecars.add(self._writer.write(tagged))

    def _report_change(
        self, photo: DuePhoto, added: tuple[StoredTag, ...], withdrawn: tuple[StoredTag, ...]
    ) -> None:
        if not added and not withdrawn:
            return
        change = PhotoChange(photo.path, added, withdrawn)
        self._report.count_change(change)
        if self._on_change:
            self._on_change(change)

    def _decision(self, content_hash: bytes) -> bytes:
        return self._rules.decision(self._embedder.fingerprint_image(content_hash))

    def _show_progress(self) -> None:
        if self._progress:
            self._progress(self._report.counts)


def _content_hash(embedded: EmbeddedImage) -> bytes:
    assert embedded.content_hash is not None, "the index keeps images"
    return embedded.content_hash


def _tagged(
    photo: DuePhoto, content_hash: bytes, tags: Sequence[StoredTag], decision: bytes
) -> PhotoOutcome:
    file = photo.file
    return PhotoOutcome(
        photo.folder.path,
        file.name,
        file.size,
        file.mtime_ns,
        content_hash,
        tags=tags,
        decision=decision,
    )


def _refused(photo: DuePhoto, problem: str) -> PhotoOutcome:
    file = photo.file
    return PhotoOutcome(
        photo.folder.path, file.name, file.size, file.mtime_ns, content_hash=None, problem=problem
    )


def _with_tags(
    photo: DuePhoto, photo_id: int, content_hash: bytes | None, tags: Sequence[StoredTag]
) -> TaggedPhoto:
    folder = Path(photo.folder.path)
    companions = tuple(folder / name for name in photo.file.companions)
    return TaggedPhoto(
        photo_id,
        content_hash,
        folder / photo.file.name,
        companions,
        photo.folder.names,
        tuple(tags),
    )
