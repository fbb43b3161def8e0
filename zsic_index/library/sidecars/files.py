"""Read sidecar files, and replace them without losing what another program has written since.

A link is followed to its target, which is read and replaced. New content goes to a temporary file
in the same folder, gets the old file's mode and owner, and is synced. Then the old file is read
again: if anyone has changed it in the meantime, it stays and the caller is told. A file that did
not exist is created by a hard link, which fails if another program was faster; file systems without
hard links get a rename.

Between the last look and the rename there are some microseconds in which a change would be lost: no
file system offers a way to close that gap.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import SidecarError
from zsic_index.formats.atomic_files import put_in_place, sync_folder, temporary_file
from zsic_index.library.sidecars.xmp import MAX_FILE_SIZE


class ChangedError(Exception):
    """The file has changed since it was read."""


@dataclass(frozen=True, slots=True)
class SidecarSnapshot:
    """A sidecar file as it was read.

    Attributes:
        path: its path as given.
        target: its path with links resolved.
        content: its bytes; None when there was no file.
    """

    path: Path
    target: Path
    content: bytes | None


def read(path: Path) -> SidecarSnapshot:
    """Read a sidecar.

    Raises:
        SidecarError: when it is not a file, is a link to nothing or to something else than a
            sidecar, is too large, or cannot be read.
    """
    target = path
    try:
        if path.is_symlink():
            target = path.resolve(strict=True)
            if target.suffix.lower() != ".xmp":
                raise SidecarError(
                    f"{path}: is a link to {target.name}, which is not an .xmp file; it is left "
                    "unchanged: remove the link"
                )
        return SidecarSnapshot(path, target, _read_content(path, target))
    except OSError as error:
        reason = "is a link to nothing" if path.is_symlink() else "cannot be read"
        raise SidecarError(f"{path}: {reason}: {error.strerror or error}") from error
    except RuntimeError as error:  # A loop of links, before Python 3.13.
        raise SidecarError(f"{path}: cannot be read: it is a loop of links") from error


def replace(snapshot: SidecarSnapshot, content: bytes | None) -> None:
    """Replace a file's content, or remove the file where ``content`` is None.

    Raises:
        ChangedError: when the file has changed since it was read; it is left unchanged then.
        SidecarError: when the file cannot be written.
    """
    target = snapshot.target
    try:
        if snapshot.content is not None and not os.access(target, os.W_OK):
            raise SidecarError(f"{snapshot.path}: is write-protected; it is left unchanged")
        if content is None:
            _check_unchanged(snapshot)
            target.unlink(missing_ok=True)
            sync_folder(target.parent)
        else:
            _write(snapshot, content)
    except OSError as error:
        raise SidecarError(
            f"{snapshot.path}: cannot be written: {error.strerror or error}; its tags stay in the "
            "store: run again when it can be"
        ) from error


def _read_content(path: Path, target: Path) -> bytes | None:
    try:
        # Opening a pipe would block.
        if not stat.S_ISREG(target.stat().st_mode):
            raise SidecarError(f"{path}: is not a file; it is left unchanged")
        with target.open("rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        return None
    if len(content) > MAX_FILE_SIZE:
        raise SidecarError(
            f"{path}: is larger than the limit of {MAX_FILE_SIZE:,} bytes for a sidecar; it is "
            "left unchanged"
        )
    return content


def _write(snapshot: SidecarSnapshot, content: bytes) -> None:
    target = snapshot.target
    with temporary_file(target.parent) as temporary:
        with temporary.open("r+b") as new:
            new.write(content)
            new.flush()
            if snapshot.content is not None:
                _copy_owner_and_mode(target, new.fileno())
            os.fsync(new.fileno())
        _check_unchanged(snapshot)
        if snapshot.content is None:
            _create(temporary, target)
        else:
            put_in_place(temporary, target)


def _create(temporary: Path, target: Path) -> None:
    """Give a temporary file its target's name, unless there is a file of that name."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise ChangedError from None
    except OSError:
        # FAT, exFAT and some shares have no hard links.
        temporary.replace(target)
    sync_folder(target.parent)


def _copy_owner_and_mode(target: Path, descriptor: int) -> None:
    status = target.stat()
    if hasattr(os, "fchown"):
        # Only root may give a file away; otherwise it becomes the writer's, as with any editor.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def _check_unchanged(snapshot: SidecarSnapshot) -> None:
    if read(snapshot.path) != snapshot:
        raise ChangedError
