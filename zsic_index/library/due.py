"""Find the photos that a run has to decide about, and count all others."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import StoreError
from zsic_index.library.run_report import RunReport
from zsic_index.library.run_settings import RunSettings
from zsic_index.library.walk import PhotoFile, PhotoFolder, walk
from zsic_index.store import Store
from zsic_index.store.photo_records import SidecarRow, StoredPhoto

_STRAY_AFTER_S = 300.0
"""Age from which a temporary file must be of a run that was killed."""


class RootGoneError(StoreError):
    """A root that disappeared during a run: an unplugged drive, or a share that is down."""

    def __init__(self, root: str) -> None:
        super().__init__(
            f"{root}: has gone while it was read: what was done is kept, and no photo counts as "
            "deleted; mount it again and run the same command"
        )


@dataclass(frozen=True, slots=True)
class DuePhoto:
    """A photo that a run has to decide about.

    Attributes:
        root: the root of the run that it is below.
        folder: its folder.
        file: its file.
        stored: its row in the store; None for a new or changed file.
    """

    root: str
    folder: PhotoFolder
    file: PhotoFile
    stored: StoredPhoto | None

    @property
    def path(self) -> str:
        """Its absolute path."""
        return os.path.join(self.folder.path, self.file.name)  # noqa: PTH118

    @property
    def files(self) -> int:
        """Number of files that share its tags, itself included."""
        return 1 + len(self.file.companions)

    @property
    def content_hash(self) -> bytes | None:
        """Hash of its content; None for a photo that has to be read."""
        if self.stored is None or self.stored.problem is not None:
            return None
        return self.stored.content_hash


class DuePhotos:
    """The photos below the roots of a run that it has to decide about.

    Iterating walks the roots. All other photos are counted in the report: those that are unchanged,
    skipped, still refused or missing.
    """

    def __init__(
        self,
        store: Store,
        index_id: int,
        settings: RunSettings,
        decision: Callable[[bytes], bytes],
        report: RunReport,
        *,
        folders: Collection[str] | None = None,
        dry_run: bool = False,
        on_folder: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a walk.

        Args:
            store: the store that photos are recorded in.
            index_id: the index that decides.
            settings: settings of the run.
            decision: returns the digest of everything that a content's tags are decided from.
            report: report of the run.
            folders: folders below the roots to look at; None for all.
            dry_run: whether the store and the folders stay unchanged.
            on_folder: called after each folder.
        """
        self._store = store
        self._index_id = index_id
        self._settings = settings
        self._decision = decision
        self._report = report
        self._folders = folders
        self._dry_run = dry_run
        self._on_folder = on_folder

    def __iter__(self) -> Iterator[DuePhoto]:
        """Walk the roots.

        Raises:
            RootGoneError: when a root disappears meanwhile.
        """
        for root in self._settings.roots:
            yield from self._in_root(root)

    def _in_root(self, root: str) -> Iterator[DuePhoto]:
        identity = _identity(root)
        walked: set[str] = set()
        gone: list[StoredPhoto] = []
        is_whole, photos = self._folders is None, 0
        for folder in walk(root, self._settings.exclude, self._folders):
            walked.add(folder.path)
            if folder.unread is not None:
                is_whole = False
                self._report.add_problem(f"{folder.path}: cannot be listed: {folder.unread}")
                continue
            photos += len(folder.photos)
            stored = self._store.photos.find_in_folder(folder.path, self._index_id)
            gone += _gone(folder, stored)
            yield from self._in_folder(root, folder, stored)
        if _identity(root) != identity:
            raise RootGoneError(root)
        if is_whole:
            self._mark_missing(root, walked, gone, has_photos=photos > 0)

    def _in_folder(
        self, root: str, folder: PhotoFolder, stored: dict[str, StoredPhoto]
    ) -> Iterator[DuePhoto]:
        if self._settings.write == "sidecar" and not self._dry_run:
            _remove_strays(folder)
        for name, reason in folder.skipped:
            self._report.skip(os.path.join(folder.path, name), reason)  # noqa: PTH118
        same = {
            file.name: row
            for file in folder.photos
            if (row := stored.get(file.name)) is not None
            and (row.size, row.mtime_ns) == (file.size, file.mtime_ns)
        }
        returned = [row.photo_id for row in same.values() if row.missing_since is not None]
        if returned and not self._dry_run:
            self._store.photos.set_missing(returned, missing_since=None)
        settled = self._settled(list(same.values()))
        for file in folder.photos:
            photo = DuePhoto(root, folder, file, same.get(file.name))
            if photo.stored is None:
                yield photo
            elif photo.stored.problem is not None:
                if self._settings.retry:
                    yield photo
                else:
                    self._report.refuse(photo.path, photo.stored.problem, photo.files)
            elif photo.stored.photo_id in settled:
                self._report.count(1, "unchanged")
                self._report.count(len(file.companions), "paired")
            else:
                yield photo
        self._on_folder()

    def _settled(self, photos: Sequence[StoredPhoto]) -> set[int]:
        """Return the ids of photos whose tags and sidecars are up to date."""
        decided = [
            photo
            for photo in photos
            if photo.content_hash is not None
            and photo.decision is not None
            and photo.decision == self._decision(photo.content_hash)
        ]
        if self._settings.write == "none":
            return {photo.photo_id for photo in decided}
        rows = self._store.sidecars.find([photo.photo_id for photo in decided])
        return {
            photo.photo_id for photo in decided if _is_written(photo, rows.get(photo.photo_id, []))
        }

    def _mark_missing(
        self, root: str, walked: set[str], gone: list[StoredPhoto], *, has_photos: bool
    ) -> None:
        """Mark photos that no longer exist as missing, unless the root seems not to be mounted."""
        folders = [
            folder for folder in self._store.photos.find_folders(root) if folder not in walked
        ]
        if not has_photos and (gone or folders):
            self._report.root_problems.append(
                f"{root}: has no photos now, and had some before: is its drive mounted? The "
                "store keeps them"
            )
            return
        for folder in folders:
            gone += self._store.photos.find_in_folder(folder, self._index_id).values()
        missing = [
            photo.photo_id
            for photo in gone
            if photo.missing_since is None and not os.path.lexists(photo.path)
        ]
        self._report.counts["missing"] += len(missing)
        if missing and not self._dry_run:
            self._store.photos.set_missing(missing, missing_since=time.time())


def _identity(root: str) -> tuple[int, int] | None:
    """Return what tells a mounted drive from its empty mount point; None without a folder."""
    try:
        status = os.stat(root)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _gone(folder: PhotoFolder, stored: dict[str, StoredPhoto]) -> list[StoredPhoto]:
    """Return the stored photos of a folder that are not in it and not yet marked as missing."""
    if not stored:
        return []
    names = {file.name for file in folder.photos}
    return [row for name, row in stored.items() if name not in names and row.missing_since is None]


def _is_written(photo: StoredPhoto, rows: Sequence[SidecarRow]) -> bool:
    """Tell whether a photo's sidecars have its tags and are unchanged since they were written."""
    if not rows:
        return not photo.tags_digest
    return all(row.tags_digest == photo.tags_digest and row.is_unchanged() for row in rows)


def _remove_strays(folder: PhotoFolder) -> None:
    """Remove temporary files that are too old to belong to a run at work."""
    for name in folder.strays:
        path = Path(folder.path) / name
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STRAY_AFTER_S:
                path.unlink()
