from __future__ import annotations

from pathlib import Path

import pytest

from zsic_index import taxonomy
from zsic_index.errors import LabelError


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", 'red fox\n# a comment\n\n  grey, "wolf" {x}  \r\nÉlan 🦌\n'),
        ("a.txt", '\ufeffred fox\ngrey, "wolf" {x}\nÉlan 🦌'),
        ("a.txt", 'red fox\ngrey, "wolf" {x}\nÉlan 🦌'.encode("utf-16")),
        ("a.csv", 'id,label\n1,red fox\n2,"grey, ""wolf"" {x}"\n3,Élan 🦌\n'),
        ("a.csv", '\ufefflabel\r\nred fox\r\n"grey, ""wolf"" {x}"\r\nÉlan 🦌\r\n'),
        ("a.tsv", 'id\tlabel\n1\tred fox\n2\t"grey, ""wolf"" {x}"\n3\tÉlan 🦌\n'),
        ("a.json", '["red fox", "grey, \\"wolf\\" {x}", {"label": "Élan 🦌", "id": 3}]'),
        ("a.jsonl", '"red fox"\n\n{"label": "grey, \\"wolf\\" {x}"}\n"Élan 🦌"\n'),
    ],
)
def test_every_format_gives_the_same_labels(tmp_path: Path, name: str, data: str | bytes) -> None:
    found = taxonomy.read(write(tmp_path / name, data))
    assert found.labels == ("red fox", 'grey, "wolf" {x}', "Élan 🦌")
    assert found.duplicates == ()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.yaml", "x", "unknown kind"),
        ("a.txt", "", "no labels"),
        ("a.txt", b"ok\n\xff\xfa bad\n", "line 2"),
        ("a.txt", "ok\nnul \0\n", "line 2"),
        ("a.txt", "y" * 3000, "limit is 2000"),
        ("a.csv", "name,id\nx,1\n", "no column 'label'"),
        ("a.csv", "label,id\nx,1\n,2\n", "line 3"),
        ("a.csv", 'label\n"open\n', "line"),
        ("a.json", "{}", "list"),
        ("a.json", "[1]", "entry 1"),
        ("a.json", '["a", {"name": "b"}]', "entry 2"),
        ("a.json", "[" * 100_000, "JSON"),
        ("a.json", '["\\ud800"]', "surrogate"),
        ("a.jsonl", '"a"\nnope\n', "line 2"),
    ],
)
def test_errors_name_file_and_place(
    tmp_path: Path, name: str, data: str | bytes, message: str
) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        taxonomy.read(write(tmp_path / name, data))
    assert name in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        taxonomy.read(tmp_path / "none.txt")


def test_duplicates_are_reported_and_dropped() -> None:
    found = taxonomy.collect(["a", "b", "a", " a "])
    assert (found.labels, found.duplicates) == (("a", "b"), ("a",))


def test_twins_are_reported_and_kept() -> None:
    found = taxonomy.collect(["Café", "Cafe\u0301", "cat", "Cat"])
    assert len(found.labels) == 4
    assert found.twins == (("Café", "Cafe\u0301"), ("cat", "Cat"))
