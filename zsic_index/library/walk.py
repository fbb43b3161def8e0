"""Walking photo libraries: which files are photos, which of them belong together, what is left out.

Left out without a word are hidden files and folders, AppleDouble files (``._name``), folders with a
``.nomedia`` file, the folders in which network drives keep their thumbnails, and what the caller
excludes. Links are followed; a folder that was walked already is not walked again.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePath

from zsic_index.errors import InputError
from zsic_index.images import heif
from zsic_index.images.opening import SUFFIXES
from zsic_index.images.raw import RAW_SUFFIXES
from zsic_index.library.sidecars.atomic_files import stray_files
from zsic_index.library.sidecars.paths import MEDIA_SUFFIXES, VIDEO_SUFFIXES, Folder

_EMBEDDED_SUFFIXES = frozenset(SUFFIXES)
"""Files that an embedding can be made of."""

_BESIDE_RAW = (".jpg", ".jpeg", *heif.HEIF_SUFFIXES)
"""What cameras write beside a RAW file, the preferred first."""

_LIVE_SUFFIXES = frozenset({".mov", ".mp4"})

_NO_MEDIA = ".nomedia"

_OF_DRIVES = frozenset({"@eadir", "#recycle", "$recycle.bin", "lost+found"})


@dataclass(frozen=True, slots=True)
class FoundPhoto:
    """A photo, with the files that share its tags.

    Attributes:
        name: within its folder.
        size: bytes.
        mtime_ns: nanoseconds since 1970.
        companions: names of the RAW file beside a JPEG, and of a Live Photo's video.
    """

    name: str
    size: int
    mtime_ns: int
    companions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundFolder:
    """A folder of a library.

    Attributes:
        path: absolute.
        photos: by name.
        names: all of its names by stem, as ``sidecars.paths.find`` takes them.
        skipped: media files that no embedding can be made of, and why.
        strays: temporary files of ours that a run which was killed has left.
        unread: why the folder cannot be listed; None where it was.
    """

    path: str
    photos: tuple[FoundPhoto, ...] = ()
    names: Folder = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()
    strays: tuple[str, ...] = ()
    unread: str | None = None


def checked_roots(roots: Sequence[str | Path]) -> list[str]:
    """Return folders as absolute paths, without those that lie in another one.

    Raises:
        InputError: for one that is not there, or no folder.
    """
    found: list[str] = []
    for root in roots:
        # Not resolved: sidecars lie beside links.
        path = os.path.abspath(root)
        if not os.path.isdir(path):
            raise InputError(f"{path}: is not a folder; is its drive mounted?")
        found.append(path)
    return [
        path
        for path in dict.fromkeys(found)
        if not any(is_within(path, other) for other in found if other != path)
    ]


def walk(
    root: str, exclude: Sequence[str] = (), folders: Collection[str] | None = None
) -> Iterator[FoundFolder]:
    """Yield the folders at and below a root, in the order of their names.

    Args:
        root: an absolute path.
        exclude: patterns as in ``fnmatch``. One with a ``/`` is compared with paths from the root,
            any other with each name.
        folders: only these, as far as a walk without them gets there; None for all.
    """
    ways = None if folders is None else {way for one in folders for way in _ways(one)}
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            found = os.stat(path)
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(path) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield FoundFolder(path, unread=error.strerror or str(error))
            continue
        if any(entry.name == _NO_MEDIA for entry in listed):
            continue
        files: list[os.DirEntry[str]] = []
        below: list[os.DirEntry[str]] = []
        for entry in listed:
            if _is_left_out(entry, root, exclude):
                continue
            (below if _is_folder(entry) else files).append(entry)
        if folders is None or path in folders:
            strays = stray_files(entry.name for entry in listed)
            yield _folder(path, files, tuple(strays))
        waiting += [entry.path for entry in reversed(below) if ways is None or entry.path in ways]


def count(root: str, exclude: Sequence[str] = ()) -> int:
    """Return how many photos there are, for a progress bar."""
    return sum(len(folder.photos) for folder in walk(root, exclude))


def _ways(folder: str) -> Iterator[str]:
    """Yield a folder and all above it."""
    while True:
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above


def is_within(path: str, other: str) -> bool:
    """Return whether an absolute path is a folder, or below it."""
    return path == other or path.startswith(os.path.join(other, ""))


def _is_left_out(entry: os.DirEntry[str], root: str, exclude: Sequence[str]) -> bool:
    name = entry.name
    if name.startswith(".") or name.lower() in _OF_DRIVES:
        return True
    if not exclude:
        return False
    within = PurePath(os.path.relpath(entry.path, root)).as_posix()
    return any(fnmatch(within if "/" in pattern else name, pattern) for pattern in exclude)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _folder(path: str, files: Sequence[os.DirEntry[str]], strays: tuple[str, ...]) -> FoundFolder:
    by_stem: dict[str, list[os.DirEntry[str]]] = defaultdict(list)
    for entry in files:
        by_stem[os.path.splitext(entry.name)[0]].append(entry)
    photos, skipped = [], []
    for entries in by_stem.values():
        of_stem, companions = _together(entries)
        skipped += [
            (entry.name, _why_skipped(entry.name))
            for entry in entries
            if _suffix(entry.name) in MEDIA_SUFFIXES
            and entry not in of_stem
            and entry.name not in companions
        ]
        for place, entry in enumerate(of_stem):
            try:
                found = entry.stat()
            except OSError as error:
                skipped.append((entry.name, error.strerror or str(error)))
                continue
            shared = tuple(companions) if place == 0 else ()
            photos.append(FoundPhoto(entry.name, found.st_size, found.st_mtime_ns, shared))
    names = {stem: [entry.name for entry in entries] for stem, entries in by_stem.items()}
    return FoundFolder(path, tuple(photos), names, tuple(skipped), strays)


def _together(
    entries: Sequence[os.DirEntry[str]],
) -> tuple[list[os.DirEntry[str]], list[str]]:
    """Return the photos of one stem, and the names that share the first one's tags."""
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


def _why_skipped(name: str) -> str:
    suffix = _suffix(name)
    return "a video" if suffix in VIDEO_SUFFIXES else f"nothing here reads {suffix[1:].upper()}"
