"""Files that appear whole or not at all: written under a temporary name, then renamed.

A reader of the target sees the old file or the new one, never a part of either. After a kill the
temporary file is left behind; ``stray_files`` tells which files these are, and
``remove_old_temporaries`` removes them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_OLD = 24 * 3600
"""Age in seconds from which no process is at work on a temporary file."""

_TEMPORARY_NAME = re.compile(r"\.zsic-[0-9a-f]{16}\.tmp")


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """Create an empty file with a temporary name; delete it at the end unless it was renamed.

    Raises:
        OSError: when the file cannot be created.
    """
    path = folder / f".zsic-{secrets.token_hex(8)}.tmp"
    # Permissions are those of any new file, which tempfile's are not: the user's mask applies.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename a temporary file, written and synced, to its target in the same folder; durably."""
    temporary.replace(target)
    sync_folder(target.parent)


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Create a folder with a temporary name; delete it at the end unless it was renamed.

    Raises:
        OSError: when the folder cannot be created.
    """
    path = folder / f".zsic-{secrets.token_hex(8)}.tmp"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def replace_folder(temporary: Path, target: Path) -> None:
    """Rename a temporary folder to its target in the same folder, durably; the old one is deleted.

    Unlike a file, a folder cannot be replaced in one step: for a moment there is none. Whoever has
    the old one's files open keeps them.
    """
    for path in temporary.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(temporary)
    with temporary_folder(target.parent) as old:
        with contextlib.suppress(FileNotFoundError):
            target.rename(old / target.name)
        temporary.rename(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, where the system can do that."""
    # Windows and some network shares cannot sync folders; the file is in place all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def stray_files(names: Iterable[str]) -> list[str]:
    """Return those of a folder's names that are temporary files.

    They may be removed while no other process writes to that folder.
    """
    return [name for name in names if _TEMPORARY_NAME.fullmatch(name)]


def remove_old_temporaries(folder: Path) -> list[Path]:
    """Remove temporary files and folders that killed processes have left; return their paths.

    They are told from those of running processes by their age.
    """
    removed = []
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for name in stray_files(names):
        path = folder / name
        # Its owner may remove it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _OLD:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
                removed.append(path)
    return removed
