"""Walk photo libraries: find photos, and the files that share their tags.

Ignored without a message are hidden files and folders, AppleDouble files (``._name``), folders with
a ``.nomedia`` file, the folders in which network drives store their thumbnails, and what the caller
excludes. Links are followed; no folder is walked twice.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePath

from zsic_index.errors import InputError
from zsic_index.formats.atomic_files import stray_files
from zsic_index.images import heif
from zsic_index.images.opening import SUFFIXES
from zsic_index.images.raw import RAW_SUFFIXES
from zsic_index.library.sidecars.paths import MEDIA_SUFFIXES, VIDEO_SUFFIXES, FolderNames

_EMBEDDED_SUFFIXES = frozenset(SUFFIXES)
"""Suffixes of files that can be embedded."""

_BESIDE_RAW = (".jpg", ".jpeg", *heif.HEIF_SUFFIXES)
"""Suffixes of files that cameras write beside a RAW file; preferred ones first."""

_LIVE_SUFFIXES = frozenset({".mov", ".mp4"})
"""Suffixes of the video of a Live Photo."""

_NO_MEDIA = ".nomedia"

_SYSTEM_FOLDERS = frozenset({"@eadir", "#recycle", "$recycle.bin", "lost+found"})
"""Names, in lower case, of folders that drives and systems create."""


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A photo in a folder, with the files that share its tags.

    Attributes:
        name: its name within the folder.
        size: its size in bytes.
        mtime_ns: its modification time, in nanoseconds since 1970.
        companions: names of the RAW file beside a JPEG, and of a Live Photo's video.
    """

    name: str
    size: int
    mtime_ns: int
    companions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PhotoFolder:
    """A folder of a library.

    Attributes:
        path: its absolute path.
        photos: its photos, in order of their names.
        names: all its file names by stem, as ``sidecars.paths.choose`` takes them.
        skipped: names of media files that cannot be embedded, each with the reason.
        strays: names of temporary files that a killed run left behind.
        unread: reason for which the folder cannot be listed; None for a folder that was listed.
    """

    path: str
    photos: tuple[PhotoFile, ...] = ()
    names: FolderNames = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()
    strays: tuple[str, ...] = ()
    unread: str | None = None


def checked_roots(roots: Sequence[str | Path]) -> list[str]:
    """Return folders as absolute paths, without those within another one.

    Raises:
        InputError: for a path that does not exist or is not a folder.
    """
    paths: list[str] = []
    for root in roots:
        # Links are not resolved: the sidecar of a linked photo is beside the link.
        path = os.path.abspath(root)
        if not os.path.isdir(path):
            raise InputError(f"{path}: is not a folder; is its drive mounted?")
        paths.append(path)
    return [
        path
        for path in dict.fromkeys(paths)
        if not any(is_within(path, other) for other in paths if other != path)
    ]


def walk(
    root: str, exclude: Sequence[str] = (), folders: Collection[str] | None = None
) -> Iterator[PhotoFolder]:
    """Yield the folders at and below a root, in the order of their names.

    Args:
        root: an absolute path.
        exclude: patterns as in ``fnmatch``. A pattern with a ``/`` is compared with paths from the
            root, any other with each name.
        folders: yields only these, where a full walk would reach them; None for all.
    """
    on_the_way = (
        None if folders is None else {path for folder in folders for path in _with_parents(folder)}
    )
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield PhotoFolder(path, unread=error.strerror or str(error))
            continue
        if any(entry.name == _NO_MEDIA for entry in listed):
            continue
        files: list[os.DirEntry[str]] = []
        subfolders: list[os.DirEntry[str]] = []
        for entry in listed:
            if _is_excluded(entry, root, exclude):
                continue
            (subfolders if _is_folder(entry) else files).append(entry)
        if folders is None or path in folders:
            strays = stray_files(entry.name for entry in listed)
            yield _read_folder(path, files, tuple(strays))
        waiting += [
            entry.path
            for entry in reversed(subfolders)
            if on_the_way is None or entry.path in on_the_way
        ]


def count(root: str, exclude: Sequence[str] = ()) -> int:
    """Return the number of photos at and below a root."""
    return sum(len(folder.photos) for folder in walk(root, exclude))


def _with_parents(folder: str) -> Iterator[str]:
    """Yield a folder and all its parents."""
    while True:
        yield folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent


def is_within(path: str, other: str) -> bool:
    """Tell whether an absolute path is at or below another."""
    return path == other or path.startswith(os.path.join(other, ""))


def _is_excluded(entry: os.DirEntry[str], root: str, exclude: Sequence[str]) -> bool:
    name = entry.name
    if name.startswith(".") or name.lower() in _SYSTEM_FOLDERS:
        return True
    if not exclude:
        return False
    path = PurePath(os.path.relpath(entry.path, root)).as_posix()
    return any(fnmatch(path if "/" in pattern else name, pattern) for pattern in exclude)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _read_folder(
    path: str, files: Sequence[os.DirEntry[str]], strays: tuple[str, ...]
) -> PhotoFolder:
    by_stem: dict[str, list[os.DirEntry[str]]] = defaultdict(list)
    for entry in files:
        by_stem[os.path.splitext(entry.name)[0]].append(entry)
    photos, skipped = [], []
    for entries in by_stem.values():
        of_stem, companions = _pair(entries)
        skipped += [
            (entry.name, _reason_skipped(entry.name))
            for entry in entries
            if _suffix(entry.name) in MEDIA_SUFFIXES
            and entry not in of_stem
            and entry.name not in companions
        ]
        for position, entry in enumerate(of_stem):
            try:
                status = entry.stat()
            except OSError as error:
                skipped.append((entry.name, error.strerror or str(error)))
                continue
            shared = tuple(companions) if position == 0 else ()
            photos.append(PhotoFile(entry.name, status.st_size, status.st_mtime_ns, shared))
    names = {stem: [entry.name for entry in entries] for stem, entries in by_stem.items()}
    return PhotoFolder(path, tuple(photos), names, tuple(skipped), strays)


def _pair(
    entries: Sequence[os.DirEntry[str]],
) -> tuple[list[os.DirEntry[str]], list[str]]:
    """Return the photos of one stem, and the names of files that share the first photo's tags."""
    of_stem = [entry for entry in entries if _suffix(entry.name) in _EMBEDDED_SUFFIXES]
    if len(entries) == 1 or not of_stem:
        return of_stem, []
    developed = [entry for entry in of_stem if _suffix(entry.name) in _BESIDE_RAW]
    if not developed:
        return of_stem, []
    first = min(developed, key=lambda entry: _BESIDE_RAW.index(_suffix(entry.name)))
    raw = [entry for entry in of_stem if _suffix(entry.name) in RAW_SUFFIXES]
    live = [entry.name for entry in entries if _suffix(entry.name) in _LIVE_SUFFIXES]
    others = [entry for entry in of_stem if entry is not first and entry not in raw]
    return [first, *others], [*(entry.name for entry in raw), *live]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _reason_skipped(name: str) -> str:
    suffix = _suffix(name)
    return "a video" if suffix in VIDEO_SUFFIXES else f"nothing here reads {suffix[1:].upper()}"
