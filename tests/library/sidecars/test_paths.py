"""The sidecar that belongs to a photo."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.sidecars import SHAPE_FOLDER, TAGS, again, names_in
from zsic_index.errors import SidecarError
from zsic_index.library.sidecars.paths import by_stem, choose
from zsic_index.library.sidecars.prepared import apply, undo


def found_names(folder: Path, photo: str, names: str, **options: Any) -> list[str]:
    for name in names.split():
        (folder / name).touch()
    present = by_stem(names_in(folder))
    return [file.path.name for file in choose(folder / photo, present, **options).files]


@pytest.mark.parametrize(
    ("photo", "names", "found"),
    [
        ("a.jpg", "a.jpg", "a.jpg.xmp"),
        ("a.jpg", "a.jpg a.xmp", "a.xmp"),
        ("a.jpg", "a.jpg a.XMP", "a.XMP"),
        ("a.jpg", "a.jpg a.jpg.Xmp", "a.jpg.Xmp"),
        ("a.jpg", "a.jpg a.jpg.xmp a.jpg.XMP", "a.jpg.xmp"),
        ("a.jpg", "a.jpg a.jpg.xmp b.xmp", "a.jpg.xmp"),
        ("a.jpg", "a.jpg a_01.jpg.xmp", "a.jpg.xmp"),
        ("a.cr2", "a.cr2", "a.cr2.xmp"),
        ("a.b.jpg", "a.b.jpg a.xmp", "a.b.jpg.xmp"),
    ],
)
def test_the_sidecar_of_a_photo(photo: str, names: str, found: str, tmp_path: Path) -> None:
    assert found_names(tmp_path, photo, names) == [found]


def test_adobe_s_style_is_for_raw_files(tmp_path: Path) -> None:
    assert found_names(tmp_path, "a.jpg", "a.jpg", style="adobe") == ["a.jpg.xmp"]
    assert found_names(tmp_path, "b.NEF", "b.NEF", style="adobe") == ["b.xmp"]


def test_a_raw_file_s_new_sidecar_is_not_taken_for_its_jpeg_s(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.CR2").touch()
    present = by_stem(names_in(tmp_path))
    (file,) = choose(tmp_path / "a.CR2", present, style="adobe").files
    merged = apply(file.path, TAGS, sidecar_for=file.sidecar_for)
    assert found_names(tmp_path, "a.CR2", "") == ["a.xmp"]
    assert found_names(tmp_path, "a.jpg", "") == ["a.jpg.xmp"]
    undo(file.path, again(merged))
    assert not file.path.exists()


def test_two_sidecars(tmp_path: Path) -> None:
    assert found_names(tmp_path, "a.jpg", "a.jpg a.xmp a.jpg.xmp") == ["a.jpg.xmp"]
    present = by_stem(names_in(tmp_path))
    assert "two sidecars" in choose(tmp_path / "a.jpg", present).warning
    assert found_names(tmp_path, "a.jpg", "", both=True) == ["a.jpg.xmp", "a.xmp"]


def test_a_shared_sidecar_says_whose_it_is(tmp_path: Path) -> None:
    shutil.copy(SHAPE_FOLDER / "lightroom.xmp", tmp_path / "a.xmp")
    assert found_names(tmp_path, "a.CR3", "a.CR3 a.jpg") == ["a.xmp"]
    assert found_names(tmp_path, "a.jpg", "") == ["a.jpg.xmp"]


def test_a_shared_sidecar_that_does_not_say_is_skipped(tmp_path: Path) -> None:
    shutil.copy(SHAPE_FOLDER / "exiftool.xmp", tmp_path / "a.xmp")
    for photo in ("a.cr2", "a.jpg"):
        with pytest.raises(SidecarError, match=r"shared by a.cr2, a.jpg"):
            found_names(tmp_path, photo, "a.cr2 a.jpg")
    (tmp_path / "a.jpg.xmp").touch()
    assert found_names(tmp_path, "a.jpg", "") == ["a.jpg.xmp"]
    with pytest.raises(SidecarError, match="shared"):
        found_names(tmp_path, "a.cr2", "")


def test_darktable_s_second_version_is_not_another_photo_s(tmp_path: Path) -> None:
    shutil.copy(SHAPE_FOLDER / "darktable.xmp", tmp_path / "IMG_2041_01.jpg.xmp")
    with pytest.raises(SidecarError, match="second version"):
        found_names(tmp_path, "IMG_2041_01.jpg", "IMG_2041_01.jpg IMG_2041.jpg")
    assert found_names(tmp_path, "IMG_2041.jpg", "") == ["IMG_2041.jpg.xmp"]
