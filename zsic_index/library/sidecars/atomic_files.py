"""Replacing a file so that whoever looks finds the old one or the new one, and no edit is lost.

A file is read whole, with its place: a link is followed to its target, which is what is replaced.
The new content goes to a temporary file in the same folder, gets the old one's mode and owner and
is synced. Then the old file is read again: if anyone has changed it in the meantime, it stays and
the caller is told. A file that was not there is put in its place by a hard link, which fails where
another program was faster; file systems without hard links get a rename.

Between the last look and the rename there are some microseconds in which a change would be lost: no
file system offers to close that gap.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars.xmp import MAX_FILE_SIZE

_STRAY = re.compile(r"\.zsic-[0-9a-f]{16}\.tmp")


class ChangedError(Exception):
    """The file is no longer what was read."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file as it was read.

    Attributes:
        path: how it was named.
        target: the file itself, links resolved.
        content: its bytes; None when there was none.
    """

    path: Path
    target: Path
    content: bytes | None


def read(path: Path) -> Snapshot:
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
                    f"{path}: is a link to {target.name}, which is no .xmp file; it is left as it "
                    "is: remove the link"
                )
        return Snapshot(path, target, _content(path, target))
    except OSError as error:
        reason = "is a link to nothing" if path.is_symlink() else "cannot be read"
        raise SidecarError(f"{path}: {reason}: {error.strerror or error}") from error
    except RuntimeError as error:  # A loop of links, before Python 3.13.
        raise SidecarError(f"{path}: cannot be read: it is a loop of links") from error


def replace(snapshot: Snapshot, content: bytes | None) -> None:
    """Put new content in the place of what was read; None removes the file.

    Raises:
        ChangedError: when the file is no longer what was read; nothing is done then.
        SidecarError: when the file cannot be written.
    """
    target = snapshot.target
    try:
        if snapshot.content is not None and not os.access(target, os.W_OK):
            raise SidecarError(f"{snapshot.path}: is write-protected; it is left as it is")
        if content is None:
            _check_unchanged(snapshot)
            target.unlink(missing_ok=True)
        else:
            _write(snapshot, content)
        _sync_folder(target.parent)
    except OSError as error:
        raise SidecarError(
            f"{snapshot.path}: cannot be written: {error.strerror or error}; its tags stay in the "
            "store: run again when it can be"
        ) from error


def stray_files(names: Iterable[str]) -> list[str]:
    """Return those of a folder's names that are temporary files of a run that was killed.

    They may be removed while no other run writes to that folder.
    """
    return [name for name in names if _STRAY.fullmatch(name)]


def _content(path: Path, target: Path) -> bytes | None:
    try:
        # A pipe would block the one who opens it.
        if not stat.S_ISREG(target.stat().st_mode):
            raise SidecarError(f"{path}: is not a file; it is left as it is")
        with target.open("rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        return None
    if len(content) > MAX_FILE_SIZE:
        raise SidecarError(
            f"{path}: is larger than the limit of {MAX_FILE_SIZE:,} bytes for a sidecar; it is "
            "left as it is"
        )
    return content


def _write(snapshot: Snapshot, content: bytes) -> None:
    target = snapshot.target
    temporary = target.parent / f".zsic-{secrets.token_hex(8)}.tmp"
    # For a new sidecar the mode is what the user's mask leaves of this one.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if snapshot.content is not None:
                _copy_owner_and_mode(target, file.fileno())
            os.fsync(file.fileno())
        _check_unchanged(snapshot)
        if snapshot.content is None:
            _put_new(temporary, target)
        else:
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _put_new(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise ChangedError from None
    except OSError:
        # FAT, exFAT and some shares have no hard links.
        temporary.replace(target)


def _copy_owner_and_mode(target: Path, descriptor: int) -> None:
    found = target.stat()
    if hasattr(os, "fchown"):
        # Only root may give a file away; without that it is the writer's, as with any editor.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))


def _check_unchanged(snapshot: Snapshot) -> None:
    if read(snapshot.path) != snapshot:
        raise ChangedError


def _sync_folder(folder: Path) -> None:
    # Where folders cannot be synced (Windows, some shares) the file is in place all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
