"""Apply verdicts and thresholds: change tags and sidecars, with the settings of the last runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from zsic_index.label_index import LabelIndex
from zsic_index.library.run_settings import RunSettings
from zsic_index.library.tag_rules import TagRules
from zsic_index.library.tagging import Tagging
from zsic_index.library.walk import is_within
from zsic_index.parallel import batched
from zsic_index.store.photo_records import StoredPhoto, StoredTag, digest_tags

_BATCH = 1_024
"""Photos whose tags are decided together."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Changes that applying would make.

    Attributes:
        photos: number of photos that would get or lose tags.
        added: number of tags that they would get.
        withdrawn: number of tags that they would lose; rejected ones have left the store already.
        sidecars: number of photos whose sidecars would not have their tags; sidecars change only
            when they are written.
    """

    photos: int
    added: int
    withdrawn: int
    sidecars: int


@dataclass(slots=True)
class Applied:
    """Changes that applying has made.

    Attributes:
        photos: number of photos that got or lost tags.
        added: number of tags that they got.
        withdrawn: number of tags that they lost.
        written: number of sidecars created or changed.
        removed: number of our sidecars removed.
        waiting: number of files that are new or have changed; the next ``tag`` handles them.
        problems: lines about files that were left unchanged.
    """

    photos: int = 0
    added: int = 0
    withdrawn: int = 0
    written: int = 0
    removed: int = 0
    waiting: int = 0
    problems: list[str] = field(default_factory=list)


class Applier:
    """Applies verdicts and thresholds to the photos in a folder.

    Each folder gets the settings of the last run that covered it. Photos without an embedding are
    left to the next ``tag``: no model is loaded here.

    Attributes:
        seen: number of photos that the running ``apply`` has processed.
    """

    def __init__(self, index: LabelIndex, under: str | None = None) -> None:
        """Prepare to apply.

        Args:
            index: index opened with ``keep_images``.
            under: only photos in and below this folder.
        """
        self._index = index
        self._index_id = index.info.index_id
        self._store = index.store
        self._embedder = index.encoder.image_embedder()
        self._under = under
        self.seen = 0

    @property
    def last_settings(self) -> RunSettings:
        """Settings of the last run over some of these photos, else the defaults."""
        return next(iter(self._settings()), RunSettings(roots=()))

    def pending(self) -> Pending:
        """Return what applying would change."""
        photos = added = withdrawn = outdated = 0
        for settings, folders in self._settings_of_folders():
            rules = settings.rules(self._index)
            for batch in self._batches(folders):
                digests = {photo.photo_id: photo.tags_digest for photo in batch}
                decided = self._decide(self._stale(batch, rules), rules)
                stored = self._store.tags.find(list(decided))
                for photo_id, tags in decided.items():
                    others = [tag for tag in stored[photo_id] if tag.index_id != self._index_id]
                    before = {tag.path for tag in stored[photo_id]} - {tag.path for tag in others}
                    after = {tag.path for tag in tags}
                    added += len(after - before)
                    withdrawn += len(before - after)
                    photos += before != after
                    digests[photo_id] = digest_tags([*others, *tags])
                outdated += len(self._outdated(digests))
        return Pending(photos, added, withdrawn, outdated)

    def apply(self, *, write: bool) -> Applied:
        """Decide again about the affected photos.

        Args:
            write: whether to write the sidecars that do not have their photo's tags.

        Raises:
            RootGoneError: when a root disappears meanwhile.
            StoreError: when a run of ``tag`` is using the store.
        """
        self.seen = 0
        applied = Applied()
        for settings, folders in self._settings_of_folders():
            affected = self._affected(settings, folders, write=write)
            if affected:
                settings = replace(
                    settings, write="sidecar" if write else "none", limit=0, retry=False
                )
                self._run(settings, affected, applied)
        return applied

    def _run(self, settings: RunSettings, folders: set[str], applied: Applied) -> None:
        before = self.seen

        def update(counts: Counter[str]) -> None:
            self.seen = before + counts["inputs"]

        report = Tagging(
            settings.rules(self._index), settings, folders=folders, progress=update
        ).run()
        applied.photos += report.counts["photos_changed"]
        applied.added += report.counts["tags_added"]
        applied.withdrawn += report.counts["tags_withdrawn"]
        applied.written += report.sidecars.written
        applied.removed += report.sidecars.removed
        applied.waiting += report.counts["skipped"]
        applied.problems += [*report.root_problems, *report.sidecars.problems]

    def _settings(self) -> list[RunSettings]:
        """Return the settings of this index's runs over these photos, the latest first."""
        name = self._index.info.name
        runs = [run for run in self._store.runs.all() if run.index_name == name]
        settings = [RunSettings.from_record(run.settings) for run in reversed(runs)]
        return [
            each for each in settings if any(_overlap(root, self._under) for root in each.roots)
        ]

    def _settings_of_folders(self) -> Iterator[tuple[RunSettings, set[str]]]:
        """Yield settings with the folders whose last run had them."""
        remaining = set(self._store.photos.find_folders(self._under))
        for settings in self._settings():
            folders = {
                folder
                for folder in remaining
                if any(is_within(folder, root) for root in settings.roots)
            }
            remaining -= folders
            if folders:
                yield settings, folders

    def _affected(
        self, settings: RunSettings, folders: Collection[str], *, write: bool
    ) -> set[str]:
        """Return the folders with photos whose tags, or sidecars, may have to change."""
        rules = settings.rules(self._index)
        affected: set[str] = set()
        for batch in self._batches(folders):
            affected |= {photo.folder for photo in self._stale(batch, rules)}
            if write:
                outdated = self._outdated({photo.photo_id: photo.tags_digest for photo in batch})
                affected |= {photo.folder for photo in batch if photo.photo_id in outdated}
        return affected

    def _batches(self, folders: Collection[str]) -> Iterator[list[StoredPhoto]]:
        """Yield the readable photos of folders in batches."""
        photos = (
            photo
            for photo in self._store.photos.iterate(index_id=self._index_id, under=self._under)
            if photo.folder in folders and photo.content_hash is not None and photo.problem is None
        )
        return batched(photos, _BATCH)

    def _stale(self, photos: Sequence[StoredPhoto], rules: TagRules) -> list[StoredPhoto]:
        """Return the photos whose tags depend on something that has changed."""
        return [photo for photo in photos if photo.decision != rules.decision(self._key(photo))]

    def _decide(self, photos: Sequence[StoredPhoto], rules: TagRules) -> dict[int, list[StoredTag]]:
        """Return photo id → tags; photos without an embedding are left out."""
        embeddings = self._index.store.embeddings.find([self._key(photo) for photo in photos])
        embedded = [photo for photo in photos if self._key(photo) in embeddings]
        if not embedded:
            return {}
        verdicts = self._store.verdicts.find(
            photo.content_hash for photo in embedded if photo.content_hash
        )
        tags = rules.decide(
            np.array([embeddings[self._key(photo)] for photo in embedded], dtype=np.float32),
            [verdicts.get(photo.content_hash or b"", {}) for photo in embedded],
        )
        return {photo.photo_id: given for photo, given in zip(embedded, tags, strict=True)}

    def _outdated(self, digests: Mapping[int, str]) -> set[int]:
        """Return the photos that have a sidecar without these tags, or tags and no sidecar.

        Args:
            digests: photo id → digest of its tags; empty for a photo without tags.
        """
        rows = self._store.sidecars.find(list(digests))
        outdated = set()
        for photo_id, digest in digests.items():
            written = {row.tags_digest for row in rows.get(photo_id, ())} or {""}
            if written != {digest}:
                outdated.add(photo_id)
        return outdated

    def _key(self, photo: StoredPhoto) -> bytes:
        return self._embedder.fingerprint_image(photo.content_hash or b"")


def _overlap(root: str, under: str | None) -> bool:
    return under is None or is_within(under, root) or is_within(root, under)
