"""From verdicts to tags: what would change, and changing it, each folder as its last run did."""

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

_AT_ONCE = 1_024
"""Photos that are decided about together."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What applying would change.

    Attributes:
        photos: photos that would get or lose tags.
        added: tags that they would get.
        withdrawn: tags that they would lose. Rejected ones have gone from the store already.
        sidecars: photos whose sidecars do not have the tags that there would be; their sidecars
            change only where they are written.
    """

    photos: int
    added: int
    withdrawn: int
    sidecars: int


@dataclass(slots=True)
class Applied:
    """What applying has changed.

    Attributes:
        photos: photos that have got or lost tags.
        added: tags that they have got.
        withdrawn: tags that they have lost.
        written: sidecars that were made or changed.
        removed: sidecars of ours that went.
        waiting: files that are new or have changed since they were tagged; they wait for ``tag``.
        problems: lines about files that are left as they are.
    """

    photos: int = 0
    added: int = 0
    withdrawn: int = 0
    written: int = 0
    removed: int = 0
    waiting: int = 0
    problems: list[str] = field(default_factory=list)


class Applying:
    """Applies verdicts and thresholds to the photos below a folder.

    A folder is decided about as the last run that covered it did. Photos that have no embedding are
    left to the next ``tag``: no model is loaded here.
    """

    def __init__(self, index: LabelIndex, under: str | None = None) -> None:
        """Look the runs up.

        Args:
            index: opened with ``keep_images``.
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
        """What the last run over some of these photos was asked; the defaults where none was."""
        found = self._settings()
        return found[0] if found else RunSettings(roots=())

    def pending(self) -> Pending:
        """Return what applying would change."""
        photos = added = withdrawn = behind = 0
        for settings, folders in self._covering():
            rules = settings.rules(self._index)
            for part in self._parts(folders):
                digests = {one.photo_id: one.tags_digest for one in part}
                decided = self._decided(self._stale(part, rules), rules)
                stored = self._store.tags.find(list(decided))
                for photo_id, tags in decided.items():
                    others = [tag for tag in stored[photo_id] if tag.index_id != self._index_id]
                    had = {tag.path for tag in stored[photo_id]} - {tag.path for tag in others}
                    has = {tag.path for tag in tags}
                    added += len(has - had)
                    withdrawn += len(had - has)
                    photos += had != has
                    digests[photo_id] = digest_tags([*others, *tags])
                behind += len(self._behind(digests))
        return Pending(photos, added, withdrawn, behind)

    def apply(self, *, write: bool) -> Applied:
        """Decide again where that is needed, and write sidecars if that is wanted.

        Args:
            write: whether sidecars that are behind are written.

        Raises:
            RootGoneError: when a root goes away meanwhile.
            StoreError: when a run is at work on the store.
        """
        self.seen = 0
        applied = Applied()
        for settings, folders in self._covering():
            concerned = self._concerned(settings, folders, write=write)
            if concerned:
                asked = replace(
                    settings, write="sidecar" if write else "none", limit=0, retry=False
                )
                self._run(asked, concerned, applied)
        return applied

    def _run(self, settings: RunSettings, folders: set[str], applied: Applied) -> None:
        before = self.seen

        def show(counts: Counter[str]) -> None:
            self.seen = before + counts["inputs"]

        report = Tagging(
            self._index, settings.rules(self._index), settings, folders=folders, progress=show
        ).run()
        applied.photos += report.counts["photos_changed"]
        applied.added += report.counts["tags_added"]
        applied.withdrawn += report.counts["tags_withdrawn"]
        applied.written += report.sidecars.written
        applied.removed += report.sidecars.removed
        applied.waiting += report.counts["skipped"]
        applied.problems += [*report.root_problems, *report.sidecars.problems]

    def _settings(self) -> list[RunSettings]:
        """Return what the runs of this index over these photos were asked, the latest first."""
        name = self._index.info.name
        runs = [run for run in self._store.runs.all() if run.index_name == name]
        found = [RunSettings.from_record(run.settings) for run in reversed(runs)]
        return [one for one in found if any(_meet(root, self._under) for root in one.roots)]

    def _covering(self) -> Iterator[tuple[RunSettings, set[str]]]:
        """Yield for each run that is the last over some folders its settings and these folders."""
        left = set(self._store.photos.find_folders(self._under))
        for settings in self._settings():
            here = {
                folder for folder in left if any(is_within(folder, root) for root in settings.roots)
            }
            left -= here
            if here:
                yield settings, here

    def _concerned(
        self, settings: RunSettings, folders: Collection[str], *, write: bool
    ) -> set[str]:
        """Return those folders that have something to be done in them."""
        rules = settings.rules(self._index)
        found: set[str] = set()
        for part in self._parts(folders):
            found |= {one.folder for one in self._stale(part, rules)}
            if write:
                behind = self._behind({one.photo_id: one.tags_digest for one in part})
                found |= {one.folder for one in part if one.photo_id in behind}
        return found

    def _parts(self, folders: Collection[str]) -> Iterator[list[StoredPhoto]]:
        """Return the photos of folders, some at a time."""
        remaining = (
            one
            for one in self._store.photos.iterate(index_id=self._index_id, under=self._under)
            if one.folder in folders and one.content_hash is not None and one.problem is None
        )
        return batched(remaining, _AT_ONCE)

    def _stale(self, photos: Sequence[StoredPhoto], rules: TagRules) -> list[StoredPhoto]:
        """Return photos that were decided about from something else than there is now."""
        return [one for one in photos if one.decision != rules.decision(self._key(one))]

    def _decided(
        self, photos: Sequence[StoredPhoto], rules: TagRules
    ) -> dict[int, list[StoredTag]]:
        """Return the tags that photos would get, by id; those without an embedding are left out."""
        found = self._index.store.embeddings.find([self._key(one) for one in photos])
        have = [one for one in photos if self._key(one) in found]
        if not have:
            return {}
        said = self._store.verdicts.find(one.content_hash for one in have if one.content_hash)
        embeddings = np.array([found[self._key(one)] for one in have], dtype=np.float32)
        decided = rules.decide(embeddings, [said.get(one.content_hash or b"", {}) for one in have])
        return {one.photo_id: tags for one, tags in zip(have, decided, strict=True)}

    def _behind(self, digests: Mapping[int, str]) -> set[int]:
        """Return photos that have a sidecar without these tags, or tags and no sidecar.

        Args:
            digests: photo id → what stands for its tags; empty for none.
        """
        rows = self._store.sidecars.find(list(digests))
        found = set()
        for photo_id, digest in digests.items():
            written = {row.tags_digest for row in rows.get(photo_id, ())} or {""}
            if written != {digest}:
                found.add(photo_id)
        return found

    def _key(self, photo: StoredPhoto) -> bytes:
        return self._embedder.key(photo.content_hash or b"")


def _meet(root: str, under: str | None) -> bool:
    return under is None or is_within(under, root) or is_within(root, under)
