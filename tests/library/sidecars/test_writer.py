"""Writing sidecars: modes, links, changes meanwhile, failing disks, kills."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.sidecars import SHAPE_FOLDER, TAGS, keywords, names_in, rest, shape, state
from zsic_index.errors import SidecarError
from zsic_index.formats.atomic_files import stray_files
from zsic_index.library.sidecars import files
from zsic_index.library.sidecars.keywords import Tag
from zsic_index.library.sidecars.merge import merge
from zsic_index.library.sidecars.prepared import apply, undo


def test_mode_and_owner_are_kept(tmp_path: Path) -> None:
    target = shape("darktable", tmp_path)
    target.chmod(0o640)
    if os.getuid() == 0:
        os.chown(target, 1234, 4321)
    before = target.stat()
    apply(target, TAGS)
    after = target.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_a_new_sidecar_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        apply(tmp_path / "photo.jpg.xmp", TAGS)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "photo.jpg.xmp").stat().st_mode) == 0o640


def test_a_link_is_written_through(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "real.xmp"
    real.parent.mkdir()
    shutil.copy(SHAPE_FOLDER / "darktable.xmp", real)
    link = tmp_path / "photo.jpg.xmp"
    link.symlink_to("elsewhere/real.xmp")
    merged = apply(link, TAGS)
    assert link.is_symlink()
    assert real.read_bytes() == merged.content
    assert [path.name for path in real.parent.iterdir()] == ["real.xmp"]


@pytest.mark.parametrize("to", ["photo.jpg", "nowhere.xmp", "photo.jpg.xmp", "."])
def test_links_to_other_things_are_left_alone(to: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"a photo")
    link = tmp_path / "photo.jpg.xmp"
    link.symlink_to(to)
    with pytest.raises(SidecarError, match=r"link|not a file"):
        apply(link, TAGS)
    assert link.is_symlink()
    assert (tmp_path / "photo.jpg").read_bytes() == b"a photo"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder.xmp").mkdir()
    os.mkfifo(tmp_path / "pipe.xmp")
    for name in ("folder.xmp", "pipe.xmp"):
        with pytest.raises(SidecarError, match="not a file"):
            apply(tmp_path / name, TAGS)


def test_a_change_while_merging_is_merged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = shape("darktable", tmp_path)
    changed = target.read_bytes().replace(b'xmp:Rating="3"', b'xmp:Rating="5"')
    replace, tries = files.replace, []

    def late(*arguments: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            target.write_bytes(changed)
        replace(*arguments)

    monkeypatch.setattr(files, "replace", late)
    merged = apply(target, TAGS)
    assert len(tries) == 2
    assert merged.content == target.read_bytes()
    assert b'xmp:Rating="5"' in target.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("links", [True, False])
def test_a_sidecar_that_appears_meanwhile_is_not_overwritten(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "photo.jpg.xmp"
    other = (SHAPE_FOLDER / "darktable.xmp").read_bytes()
    check = files._check_unchanged

    def late(snapshot: Any) -> None:
        if links:
            check(snapshot)
        if not target.exists():
            target.write_bytes(other)
        if not links:
            check(snapshot)

    def no_links(*_: Any) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(files, "_check_unchanged", late)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    merged = apply(target, TAGS)
    assert merged.content == target.read_bytes()
    assert rest(target.read_bytes()) == rest(other)


def test_a_sidecar_that_appears_on_a_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "photo.jpg.xmp"
    assert apply(target, TAGS).content == target.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_never_stays_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = shape("darktable", tmp_path)
    check = files._check_unchanged

    def late(snapshot: Any) -> None:
        target.write_bytes(target.read_bytes() + b"\n")
        check(snapshot)

    monkeypatch.setattr(files, "_check_unchanged", late)
    with pytest.raises(SidecarError, match="by another program"):
        apply(target, TAGS)
    assert target.read_bytes() == (SHAPE_FOLDER / "darktable.xmp").read_bytes() + b"\n" * 5
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("call", ["open", "fsync", "fchmod", "write"])
def test_a_full_or_failing_disk(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = shape("darktable", tmp_path)
    before = state(target)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if call == "write":
        open_path = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, mode: open_path(path, mode) if mode == "rb" else fail()
        )
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(SidecarError, match="No space left on device"):
        apply(target, TAGS)
    monkeypatch.undo()
    assert state(target) == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_what_may_not_be_written(read_only: str, tmp_path: Path) -> None:
    target = shape("darktable", tmp_path)
    before = state(target)
    path, mode = (target, 0o444) if read_only == "file" else (tmp_path, 0o555)
    path.chmod(mode)
    try:
        with pytest.raises(SidecarError, match=r"write-protected|Permission denied"):
            apply(target, TAGS)
    finally:
        path.chmod(mode | 0o200)
    assert state(target)[:4] == before[:4]


KILLED = """
import sys
from pathlib import Path
from zsic_index.library.sidecars.keywords import Tag
from zsic_index.library.sidecars.prepared import apply
target = Path(sys.argv[1])
record = None
print("ready", flush=True)
while True:
    for tags in (["dog"], ["cat", "tram"], []):
        record = apply(target, [Tag(("ai", tag)) for tag in tags], record).record
"""


@pytest.mark.parametrize("made", [False, True])
def test_a_kill_leaves_the_old_or_the_new_file(made: bool, tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    original = None if made else (SHAPE_FOLDER / "darktable.xmp").read_bytes()
    states = {original} | {
        merge(original, [Tag(("ai", tag)) for tag in tags], None, origin=None).content
        for tags in (["dog"], ["cat", "tram"])
    }
    seen = set()
    chance = random.Random(0)
    for _ in range(10):
        if original is None:
            target.unlink(missing_ok=True)
        else:
            target.write_bytes(original)
        worker = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.1))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        content = target.read_bytes() if target.exists() else None
        assert content in states
        seen.add(content)
        # A run that goes on has lost its record, and the ledger says what is ours.
        undo(target)
        if target.exists():
            assert keywords(target.read_bytes()) == keywords(original or b"")
        strays = stray_files(names_in(tmp_path))
        assert set(names_in(tmp_path)) - set(strays) <= {target.name}
        for name in strays:
            (tmp_path / name).unlink()
    assert len(seen) > 1
