"""Which file is a photo's sidecar.

Programs use two names: ``photo.jpg.xmp`` (darktable, Immich) and ``photo.xmp`` (Lightroom, and
digiKam's first choice). One that is there is used, and no second one is ever made beside it.
darktable's duplicates, ``photo_01.jpg.xmp`` for a second version of ``photo.jpg``, belong to no
photo.
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
from zsic_index.library.sidecars import atomic_files
from zsic_index.library.sidecars.xmp import DERIVED_FROM, SIDECAR_FOR, Packet, parse

Style = Literal["full", "adobe"]
"""What a new sidecar is called: ``photo.jpg.xmp``, or ``photo.xmp`` for RAW files only."""

VIDEO_SUFFIXES = frozenset(
    {".mov", ".mp4", ".m4v", ".avi", ".mts", ".m2ts", ".mkv", ".3gp", ".webm"}
)

MEDIA_SUFFIXES = frozenset({*SUFFIXES, *VIDEO_SUFFIXES, ".jp2", ".jxl", ".psd"})
"""Files that a sidecar may be for, whether we can read them or not."""

Folder = Mapping[str, Sequence[str]]
"""The names in a folder by their stem, that is, without their last suffix."""

_DUPLICATE = re.compile(r"(.+)_\d\d")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One sidecar of a photo.

    Attributes:
        path: the file; it need not be there yet.
        sidecar_for: the photo's suffix without its dot, to be noted in a sidecar that is made under
            a name that other photos could share; empty for one with the photo's full name.
    """

    path: Path
    sidecar_for: str = ""


@dataclass(frozen=True, slots=True)
class Sidecars:
    """Where a photo's tags go.

    Attributes:
        files: the sidecars to write: one, unless both are asked for.
        warning: what the user should know of the choice; empty when it is plain.
    """

    files: tuple[Sidecar, ...]
    warning: str = ""


def by_stem(names: Iterable[str]) -> Folder:
    """Return a folder's names as ``find`` needs them: once for the folder, not for each photo."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(PurePath(name).stem, []).append(name)
    return found


def find(photo: Path, folder: Folder, *, style: Style = "full", both: bool = False) -> Sidecars:
    """Return where a photo's tags go.

    Args:
        photo: its path; where it is a link its sidecar is beside the link.
        folder: what ``by_stem`` gave for its folder.
        style: what a sidecar is called when there is none yet.
        both: whether both are updated where there are two.

    Raises:
        SidecarError: when the only sidecar is one that several photos share and it does not say
            whose it is, or one of another version of a photo; or it cannot be read.
    """
    full = _sidecar(photo, folder, photo.name)
    short = _sidecar(photo, folder, photo.stem)
    if full and _is_of_duplicate(photo, full, folder):
        raise SidecarError(
            f"{full}: is darktable's second version of another photo, not of {photo.name}; it is "
            "left as it is: rename the photo"
        )
    if short and not _is_for(photo, short, folder, needed=full is None):
        short = None
    if full is None and short is None:
        if style == "adobe" and photo.suffix.lower() in RAW_SUFFIXES:
            short = photo.with_suffix(".xmp")
        else:
            full = photo.with_name(f"{photo.name}.xmp")
    files = []
    if full:
        files.append(Sidecar(full))
    if short:
        files.append(Sidecar(short, photo.suffix[1:]))
    if full and short and not both:
        return Sidecars(
            (files[0],),
            f"{photo}: has two sidecars; {full.name} is updated and {short.name} is not: "
            "use --both for both",
        )
    return Sidecars(tuple(files))


def _sidecar(photo: Path, folder: Folder, stem: str) -> Path | None:
    """Return the file ``stem.xmp``, whatever the case of its suffix; lower case first."""
    found = [name for name in folder.get(stem, ()) if PurePath(name).suffix.lower() == ".xmp"]
    return photo.with_name(max(found)) if found else None


def _others(photo: Path, folder: Folder) -> list[str]:
    """Return the other photos and videos that ``photo.xmp`` might be for."""
    return [
        name
        for name in folder.get(photo.stem, ())
        if name != photo.name and PurePath(name).suffix.lower() in MEDIA_SUFFIXES
    ]


def _is_for(photo: Path, short: Path, folder: Folder, *, needed: bool) -> bool:
    others = _others(photo, folder)
    if not others:
        return True
    suffix = _read(short).plain(SIDECAR_FOR)
    if suffix:
        return photo.suffix.lower() == f".{suffix.lower().lstrip('.')}"
    if needed:
        raise SidecarError(
            f"{short}: is shared by {', '.join(sorted([photo.name, *others]))} and does not say "
            f"which it is for; it is left as it is: rename it to {photo.name}.xmp"
        )
    return False


def _is_of_duplicate(photo: Path, full: Path, folder: Folder) -> bool:
    found = _DUPLICATE.fullmatch(photo.stem)
    if not found:
        return False
    original = found[1] + photo.suffix
    return original in folder.get(found[1], ()) and _read(full).plain(DERIVED_FROM) == original


def _read(path: Path) -> Packet:
    content = atomic_files.read(path).content
    if content is None:
        raise SidecarError(f"{path}: is gone; run again")
    return parse(content, str(path))
