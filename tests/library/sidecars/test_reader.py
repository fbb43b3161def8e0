"""Each sidecar is read and parsed once for a write, not counting the guards.

The guards are the second read, just before the file is replaced, and the parse of the new content.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.sidecars import SHAPE_FOLDER
from zsic_index.library.sidecars import files, xmp
from zsic_index.library.sidecars.paths import by_stem
from zsic_index.library.sidecars.writer import SidecarWriter, TaggedPhoto, WriteReport
from zsic_index.store import Store
from zsic_index.store.photo_records import PhotoOutcome, Run, StoredTag

RUN = Run("run-1", "0" * 64, "things", "openai/clip", "0" * 64, {})

DOG = StoredTag(1, ("ai", "animal", "dog"), 7, 0.93, RUN.run_id)
TRAM = StoredTag(1, ("ai", "things", "tram"), 8, 0.81, RUN.run_id)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Reads of sidecars and parses of XMP in a test."""
    counts: Counter[str] = Counter()
    for owner, name, counted in (
        (files, "_read_content", "reads"),
        (xmp._Reader, "read", "parses"),
    ):
        original = getattr(owner, name)

        def count(*arguments: Any, original: Any = original, counted: str = counted) -> Any:
            counts[counted] += 1
            return original(*arguments)

        monkeypatch.setattr(owner, name, count)
    return counts


class Library:
    """One photo, ``a.jpg``, and a writer of its sidecars."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.photo = folder / "a.jpg"
        self.photo.write_bytes(b"a photo without metadata")
        run = store.runs.start(RUN)
        outcome = PhotoOutcome(str(folder), self.photo.name, 1, 1, b"\0" * 32)
        (recorded,) = store.photos.record([outcome], 1, run.run_id)
        self.photo_id = recorded.photo_id
        self._writer = SidecarWriter(store, {run.run_id: run})

    def write(self, *tags: StoredTag) -> WriteReport:
        names = by_stem(path.name for path in self.folder.iterdir())
        photo = TaggedPhoto(self.photo_id, b"\0" * 32, self.photo, (), names, tags)
        return self._writer.write([photo])


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    folder = tmp_path / "photos"
    folder.mkdir()
    with Store.open(create=True) as store:
        yield Library(store, folder)


def read_and_parsed(counts: Counter[str]) -> tuple[int, int]:
    """Return the reads and parses since the last call."""
    numbers = counts["reads"], counts["parses"]
    counts.clear()
    return numbers


def test_a_new_sidecar(library: Library, counts: Counter[str]) -> None:
    library.write(DOG)
    (library.folder / "a.jpg.xmp").unlink()
    library.store.sidecars.remove([str(library.folder / "a.jpg.xmp")])
    read_and_parsed(counts)  # of the empty sidecar, which is kept
    assert library.write(DOG).written == 1
    assert read_and_parsed(counts) == (2, 1)
    assert library.write(DOG, TRAM).written == 1
    assert read_and_parsed(counts) == (2, 1)
    assert library.write(DOG, TRAM).unchanged == 1
    assert read_and_parsed(counts) == (1, 0)
    assert library.write().removed == 1
    assert read_and_parsed(counts) == (2, 0)


def test_another_program_s_sidecar(library: Library, counts: Counter[str]) -> None:
    sidecar = library.folder / "a.jpg.xmp"
    shutil.copy(SHAPE_FOLDER / "darktable.xmp", sidecar)
    assert library.write(DOG).written == 1
    assert read_and_parsed(counts) == (2, 2)
    assert library.write(DOG, TRAM).written == 1
    assert read_and_parsed(counts) == (2, 2)
    sidecar.write_bytes(sidecar.read_bytes() + b"\n")
    assert library.write(DOG).written == 1
    assert read_and_parsed(counts) == (2, 2)
    assert library.write().written == 1
    assert read_and_parsed(counts) == (2, 1)


def test_a_shared_sidecar(library: Library, counts: Counter[str]) -> None:
    """It is parsed to see which photo it is for."""
    content = (SHAPE_FOLDER / "lightroom.xmp").read_bytes().replace(b"CR3", b"jpg")
    (library.folder / "a.xmp").write_bytes(content)
    (library.folder / "a.cr3").touch()
    assert library.write(DOG).written == 1
    assert read_and_parsed(counts) == (2, 2)
    # The new tags are added to the sidecar without our changes, which is a third content.
    assert library.write(DOG, TRAM).written == 1
    assert read_and_parsed(counts) == (2, 3)


def test_a_sidecar_that_changes_after_it_was_chosen(
    library: Library, counts: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that is shared does not hide a change from the guard."""
    sidecar = library.folder / "a.xmp"
    content = (SHAPE_FOLDER / "lightroom.xmp").read_bytes().replace(b"CR3", b"jpg")
    sidecar.write_bytes(content)
    (library.folder / "a.cr3").touch()
    check = files._check_unchanged

    def change_first(snapshot: Any) -> None:
        if snapshot.content == content:
            sidecar.write_bytes(content + b"<!-- saved meanwhile -->")
        check(snapshot)

    monkeypatch.setattr(files, "_check_unchanged", change_first)
    assert library.write(DOG).written == 1
    assert sidecar.read_bytes().endswith(b"<!-- saved meanwhile -->")
    assert b"ai/animal/dog" in sidecar.read_bytes()
    # Both attempts read the file twice; each parses the old and the new content.
    assert read_and_parsed(counts) == (4, 4)


def test_an_unreadable_sidecar_after_a_kill_fails_alone(library: Library) -> None:
    """A pending intent is looked up in the file; what goes wrong there concerns one photo."""
    sidecar = library.folder / "a.jpg.xmp"
    library.write(DOG)
    (row,) = library.store.sidecars.find([library.photo_id])[library.photo_id]
    intent = json.dumps({"written": "0" * 64, "record": None})
    library.store.sidecars.save([replace(row, intent=intent)])
    sidecar.unlink()
    sidecar.symlink_to("nowhere.xmp")
    report = library.write(DOG)
    assert report.failed == {library.photo_id}
    assert "link to nothing" in report.problems[0]
