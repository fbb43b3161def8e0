"""Labelled images from folders and tables, and their counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsic_index import evaluation
from zsic_index.errors import InputError
from zsic_index.evaluation import read_labelled
from zsic_index.evaluation.reading import LabelledImage


def touch(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def adds_up(found: evaluation.LabelledImages) -> bool:
    parts = (len(found.images), found.repeated, len(found.missing), found.unlabelled, found.ignored)
    return found.entries == sum(parts)


def test_a_folder_per_label(tmp_path: Path) -> None:
    for name in (
        "Aves/Corvidae/Pica pica/b.JPG",
        "Aves/Corvidae/Pica pica/a.png",
        "Aves/Corvidae/unsure.webp",
        "red fox, {x}/1.jpeg",
        "lone.png",
        "readme.txt",
        "red fox, {x}/.hidden.png",
        "red fox, {x}/Thumbs.db",
        ".cache/red fox/1.png",
    ):
        touch(tmp_path / name)
    found = read_labelled(tmp_path)
    assert [(str(one.path.relative_to(tmp_path)), one.labels) for one in found.images] == [
        ("Aves/Corvidae/unsure.webp", ("Corvidae",)),
        ("Aves/Corvidae/Pica pica/a.png", ("Pica pica",)),
        ("Aves/Corvidae/Pica pica/b.JPG", ("Pica pica",)),
        ("red fox, {x}/1.jpeg", ("red fox, {x}",)),
    ]
    assert (found.unlabelled, found.ignored, found.entries) == (1, 4, 9)
    assert adds_up(found)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", 'path,label\nx/1.png,"wren, {small}"\n2.png, robin | wren \ngone.png,wren\n'
                  "2.png,wren|jay\ngone.png,jay\n"),
        ("a.csv", "\ufefflabel;path\r\nwren, {small};x/1.png\r\nrobin|wren;2.png\r\nwren;gone.png"
                  "\r\nwren|jay;2.png\r\njay;gone.png\r\n"),
        ("a.tsv", "path\tlabel\tby\nx/1.png\twren, {small}\tme\n2.png\trobin|wren\n"
                  "gone.png\twren\n2.png\twren|jay\ngone.png\tjay\n"),
    ],
)  # fmt: skip
def test_a_table(tmp_path: Path, name: str, data: str) -> None:
    one, two = touch(tmp_path / "x/1.png"), touch(tmp_path / "2.png")
    found = read_labelled(touch(tmp_path / name, data.encode()))
    assert found.images == (
        LabelledImage(one, ("wren, {small}",)),
        LabelledImage(two, ("robin", "wren", "jay")),
    )
    assert (found.entries, found.repeated, found.missing) == (5, 1, (tmp_path / "gone.png",) * 2)
    assert adds_up(found)


def test_absolute_paths(tmp_path: Path) -> None:
    image = touch(tmp_path / "pictures/1.png")
    found = read_labelled(touch(tmp_path / "lists/a.csv", f"path,label\n{image},wren\n".encode()))
    assert found.images[0].path == image


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("path,label\n1.png,wren\n,robin\n", "line 3.*path is empty"),
        ("path,label\n1.png,\n", "line 2.*label is empty"),
        ("path,label\n1.png,wren|\n", "line 2.*label is empty"),
        ("path,name\n1.png,wren\n", "no column 'label'"),
        ("path,label\n", "no labelled images"),
        ("path,label\ngone.png,wren\n", "1 files are missing"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, data: str, message: str) -> None:
    touch(tmp_path / "1.png")
    with pytest.raises(InputError, match=message) as caught:
        read_labelled(touch(tmp_path / "a.csv", data.encode()))
    assert "a.csv" in str(caught.value)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    touch(tmp_path / "lone.png")
    with pytest.raises(InputError, match="no labelled images"):
        read_labelled(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_labelled(tmp_path / "none.csv")
