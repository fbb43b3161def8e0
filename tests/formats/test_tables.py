"""One dialect rule for every table: label files, thresholds, labelled images, lists of images."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import zsic_index
from zsic_index import taxonomy
from zsic_index.errors import InputError
from zsic_index.evaluation.reading import read_labelled, read_unlabelled
from zsic_index.formats.tables import choose_separator, read_table_rows
from zsic_index.querying.thresholds import read_thresholds

ROWS = (("path", "threshold", "label"), ("1.png", "0.1", "wren"), ("2.png", "0.5", 'a, "b"; c'))

Values = list[str]
Reader = Callable[[Path], Values]


def labels(path: Path) -> Values:
    return list(taxonomy.read(path).labels)


def thresholds(path: Path) -> Values:
    return list(read_thresholds(path).labels)


def labelled(path: Path) -> Values:
    for name in ("1.png", "2.png"):
        (path.parent / name).touch()
    return [label for image in read_labelled(path).images for label in image.labels]


def unlabelled(path: Path) -> Values:
    return [image.name for image in read_unlabelled(path)]


def delimited(separator: str, end: str = "\n", rows: tuple[tuple[str, ...], ...] = ROWS) -> str:
    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"' if set(cell) & set(separator + '"') else cell

    return end.join(separator.join(map(quoted, row)) for row in rows) + end


def titled(title: Callable[[str], str]) -> tuple[tuple[str, ...], ...]:
    return (tuple(map(title, ROWS[0])), *ROWS[1:])


DIALECTS: dict[str, tuple[str, bytes]] = {
    "commas": ("a.csv", delimited(",").encode()),
    "semicolons": ("a.csv", delimited(";").encode()),
    "tabs": ("a.tsv", delimited("\t").encode()),
    "suffix in capitals": ("a.CSV", delimited(";").encode()),
    "byte-order mark": ("a.csv", b"\xef\xbb\xbf" + delimited(";").encode()),
    "UTF-16": ("a.csv", delimited(",").encode("utf-16")),
    "CR LF": ("a.csv", delimited(",", "\r\n").encode()),
    "CR": ("a.csv", delimited(";", "\r").encode()),
    "no last line end": ("a.csv", delimited(",").rstrip().encode()),
    "blank lines first": ("a.csv", ("\n\n" + delimited(";")).encode()),
    "blank lines between": ("a.csv", delimited(",").replace("\n", "\n\n").encode()),
    "titles in any case": ("a.csv", delimited(";", rows=titled(str.upper)).encode()),
    "spaces around titles": ("a.csv", delimited(",", rows=titled(" {} ".format)).encode()),
    "comma in another title": (
        "a.csv",
        delimited(";", rows=tuple((*row, "notes, long") for row in ROWS)).encode(),
    ),
    "semicolon in another title": (
        "a.csv",
        delimited(",", rows=tuple((*row, "notes;long") for row in ROWS)).encode(),
    ),
    "another title twice": (
        "a.csv",
        delimited(",", rows=tuple((*r, "x", "x") for r in ROWS)).encode(),
    ),
    "empty cells past the header": (
        "a.csv",
        delimited(",", rows=(ROWS[0], *((*row, "", "") for row in ROWS[1:]))).encode(),
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("reader", [labels, thresholds, labelled, unlabelled])
def test_every_reader_takes_every_dialect(tmp_path: Path, reader: Reader, dialect: str) -> None:
    name, data = DIALECTS[dialect]
    (tmp_path / name).write_bytes(data)
    column = 0 if reader is unlabelled else 2
    assert reader(tmp_path / name) == [row[column] for row in ROWS[1:]]


BROKEN: dict[str, tuple[bytes, str]] = {
    "open quote": (b'path,threshold,label\n1.png,0.1,"a\nb', "line 2: .*stands in double quotes"),
    "text after a quote": (b'path,threshold,label\n1.png,0.1,"a"b\n', "line 2: .*double quotes"),
    "too many cells": (
        b'path,threshold,label\n"1\n2.png",0.1,a\n1.png,0.1,a,b\n',
        "line 4: 4 cells under a header of 3: put a cell with the separator in it",
    ),
    "a column twice": (
        b"path,Path,threshold,Threshold,label,Label\n",
        "line 1: the column '(Path|Threshold|Label)' is there twice: remove or rename one",
    ),
    "no column": (
        b"\nfile;limit;name\n1.png;0.1;a\n",
        "line 2: no column '(path|threshold|label)' in the header.*; it has: file;limit;name",
    ),
    "no UTF-8": (b"path,threshold,label\n1.png,0.1,\xff\n", "line 2 is not UTF-8 text"),
    "too long a cell": (b'path,threshold,"label' + b"x" * 140_000, "line 1: field larger than"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("reader", [labels, thresholds, labelled, unlabelled])
def test_every_reader_names_the_line(tmp_path: Path, reader: Reader, fault: str) -> None:
    data, message = BROKEN[fault]
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        reader(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("a,b", ","),
        ("a;b", ";"),
        ("a", ","),
        ("a;x,b", ","),
        ("a;b;x,y", ";"),
        ("x;y", ","),
        ('"a;x";b', ";"),
        ("", ","),
        ('"open', ","),
    ],
)
def test_the_separator_is_the_one_that_finds_more_columns(header: str, separator: str) -> None:
    assert choose_separator(header, ".csv", "ab".__contains__) == separator
    assert choose_separator(header, ".tsv", "ab".__contains__) == "\t"


def test_rows_without_text_are_skipped_and_places_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(' , \na,b\n , \n"x\ny",\n,z\n')
    rows = list(read_table_rows(path, ("a",), ("b",)))
    assert [(row.place, row.values) for row in rows] == [
        (f"{path}: line 4", {"a": "x\ny"}),
        (f"{path}: line 6", {"b": "z"}),
    ]


def test_one_module_reads_tables() -> None:
    """A second reader would decide about dialects in its own way."""
    root = Path(zsic_index.__file__).parent
    readers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("csv", "reader"), ("csv", "DictReader")}
    }
    assert readers == {"formats/tables.py"}
