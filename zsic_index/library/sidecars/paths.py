"""Find the sidecar of a photo.

Programs use two names: ``photo.jpg.xmp`` (darktable, Immich) and ``photo.xmp`` (Lightroom, and
digiKam's first choice). An existing sidecar is used, and a second one is never created beside it.
darktable's duplicates, such as ``photo_01.jpg.xmp`` for a second version of ``photo.jpg``, belong
to no photo.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from zsic_index.errors import SidecarError
from zsic_index.images.opening import SUFFIXES
from zsic_index.images.raw import RAW_SUFFIXES
from zsic_index.library.sidecars.packet import DERIVED_FROM, SIDECAR_FOR
from zsic_index.library.sidecars.reader import SidecarReader

Style = Literal["full", "adobe"]
"""Name of a new sidecar: ``photo.jpg.xmp``; or ``photo.xmp``, for RAW files only."""

VIDEO_SUFFIXES = frozenset(
    {".mov", ".mp4", ".m4v", ".avi", ".mts", ".m2ts", ".mkv", ".3gp", ".webm"}
)

MEDIA_SUFFIXES = frozenset({*SUFFIXES, *VIDEO_SUFFIXES, ".jp2", ".jxl", ".psd"})
"""Suffixes of files that may have a sidecar, whether or not their images can be decoded."""

FolderNames = Mapping[str, Sequence[str]]
"""File names in a folder, by their stem: the name without its last suffix."""

_DUPLICATE = re.compile(r"(.+)_\d\d")


@dataclass(frozen=True, slots=True)
class SidecarPath:
    """Path of one sidecar of a photo.

    Attributes:
        path: the file, which may not exist yet.
        sidecar_for: the photo's suffix without its dot, to note in a new sidecar whose name other
            photos could share; empty for a sidecar with the photo's full name.
    """

    path: Path
    sidecar_for: str = ""


@dataclass(frozen=True, slots=True)
class SidecarChoice:
    """Sidecars to write a photo's tags to.

    Attributes:
        files: one sidecar, or two where both are to be written.
        warning: message to the user about the choice; empty when there was none to make.
    """

    files: tuple[SidecarPath, ...]
    warning: str = ""


def by_stem(names: Iterable[str]) -> FolderNames:
    """Return a folder's file names by stem, as ``choose`` takes them."""
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(PurePath(name).stem, []).append(name)
    return stems


def choose(
    photo: Path,
    names: FolderNames,
    *,
    style: Style = "full",
    both: bool = False,
    reader: SidecarReader | None = None,
) -> SidecarChoice:
    """Choose the sidecars to write a photo's tags to.

    Args:
        photo: its path; the sidecar of a link is beside the link.
        names: the names in its folder.
        style: name of a new sidecar, for a photo that has none.
        both: whether both are written where a photo has two.
        reader: reads sidecars that several photos may share.

    Raises:
        SidecarError: when the only sidecar is shared by several photos and does not say which it is
            for, or belongs to another version of a photo; or when it cannot be read.
    """
    reader = reader or SidecarReader()
    full = _find(photo, names, photo.name)
    short = _find(photo, names, photo.stem)
    if full and _is_of_duplicate(photo, full, names, reader):
        raise SidecarError(
            f"{full}: is darktable's second version of another photo, not of {photo.name}; it is "
            "left unchanged: rename the photo"
        )
    if short and not _is_for(photo, short, names, reader, is_only=full is None):
        short = None
    if full is None and short is None:
        if style == "adobe" and photo.suffix.lower() in RAW_SUFFIXES:
            short = photo.with_suffix(".xmp")
        else:
            full = photo.with_name(f"{photo.name}.xmp")
    files = []
    if full:
        files.append(SidecarPath(full))
    if short:
        files.append(SidecarPath(short, photo.suffix[1:]))
    if full and short and not both:
        return SidecarChoice(
            (files[0],),
            f"{photo}: has two sidecars; {full.name} is updated and {short.name} is not: "
            "use --both for both",
        )
    return SidecarChoice(tuple(files))


def _find(photo: Path, names: FolderNames, stem: str) -> Path | None:
    """Return the file ``stem.xmp``, whatever the case of its suffix; lower case first."""
    sidecars = [name for name in names.get(stem, ()) if PurePath(name).suffix.lower() == ".xmp"]
    return photo.with_name(max(sidecars)) if sidecars else None


def _others(photo: Path, names: FolderNames) -> list[str]:
    """Return the other photos and videos that ``photo.xmp`` might be for."""
    return [
        name
        for name in names.get(photo.stem, ())
        if name != photo.name and PurePath(name).suffix.lower() in MEDIA_SUFFIXES
    ]


def _is_for(
    photo: Path, short: Path, names: FolderNames, reader: SidecarReader, *, is_only: bool
) -> bool:
    """Tell whether the sidecar ``photo.xmp`` is for a photo rather than for another one.

    Raises:
        SidecarError: when it is the photo's only sidecar and does not say which photo it is for.
    """
    others = _others(photo, names)
    if not others:
        return True
    suffix = reader.parse(short).first_value(SIDECAR_FOR)
    if suffix:
        return photo.suffix.lower() == f".{suffix.lower().lstrip('.')}"
    if is_only:
        raise SidecarError(
            f"{short}: is shared by {', '.join(sorted([photo.name, *others]))} and does not say "
            f"which it is for; it is left unchanged: rename it to {photo.name}.xmp"
        )
    return False


def _is_of_duplicate(photo: Path, full: Path, names: FolderNames, reader: SidecarReader) -> bool:
    match = _DUPLICATE.fullmatch(photo.stem)
    if not match:
        return False
    original = match[1] + photo.suffix
    return (
        original in names.get(match[1], ())
        and reader.parse(full).first_value(DERIVED_FROM) == original
    )
