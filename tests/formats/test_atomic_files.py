"""Temporary files that killed processes have left."""

from __future__ import annotations

import os
import time
from pathlib import Path

from zsic_index.formats.atomic_files import (
    remove_old_temporaries,
    temporary_file,
    temporary_folder,
)


def test_temporary_files_are_removed_when_they_are_old(tmp_path: Path) -> None:
    with temporary_file(tmp_path) as file, temporary_folder(tmp_path) as folder:
        (folder / "weights").write_bytes(b"1")
        other = tmp_path / ".zsic-mine.tmp"
        other.touch()
        assert remove_old_temporaries(tmp_path) == []
        day_before = time.time() - 25 * 3600
        for path in (file, folder, other):
            os.utime(path, (day_before, day_before))
        assert sorted(remove_old_temporaries(tmp_path)) == sorted([file, folder])
        assert list(tmp_path.iterdir()) == [other]
    assert remove_old_temporaries(tmp_path / "missing") == []
