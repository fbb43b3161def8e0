"""Reading small tables with a header: CSV, TSV, or JSON objects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        place: the file and the line, for messages.
        values: column → what stands in it, without spaces around it; columns that are empty are
            left out.
    """

    place: str
    values: dict[str, str]


def read_rows(path: Path, required: Sequence[str]) -> Iterator[Row]:
    """Read the rows of a table in order; rows without any value are skipped.

    A ``.csv`` has commas or, where its header has none, semicolons; a ``.tsv`` tabs. A ``.json`` is
    a list of objects, their values strings or numbers. Text is UTF-8, with or without a byte-order
    mark, or UTF-16 with one.

    Args:
        path: the file.
        required: columns that must be there.

    Raises:
        InputError: when it is missing, of another kind, broken, or lacks a column; the message
            names the file and, where there is one, the line on which the row starts.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    match path.suffix.lower():
        case ".csv" | ".tsv" as suffix:
            rows = _read_delimited(decoded(data, path), path, suffix, required)
        case ".json":
            rows = _read_json(decoded(data, path), path, required)
        case suffix:
            raise InputError(f"{path}: unknown kind of table {suffix!r}; use .csv, .tsv or .json")
    yield from rows


def decoded(data: bytes, path: Path, kind: type[InputError] = InputError) -> str:
    """Return the text of a file: UTF-8, with or without a byte-order mark, or UTF-16 with one.

    Args:
        data: what is in it.
        path: the file, for messages.
        kind: the error that is raised for anything else.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise kind(
            f"{path}: line {line} is not {encoding.removesuffix('-sig').upper()} text; "
            "save the file as UTF-8"
        ) from None


def _read_delimited(text: str, path: Path, suffix: str, required: Sequence[str]) -> Iterator[Row]:
    header, _, _ = text.lstrip().partition("\n")
    delimiter = "\t" if suffix == ".tsv" else ";" if ";" in header and "," not in header else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            place, start = f"{path}: line {start}", reader.line_num + 1
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if columns is None:
                columns = cells
                _check_columns(columns, required, place)
                continue
            if len(cells) > len(columns):
                raise InputError(
                    f"{place}: has {len(cells)} cells, the header {len(columns)}: put quotes "
                    f"around a value that holds {delimiter!r}"
                )
            yield Row(place, {c: value for c, value in zip(columns, cells, strict=False) if value})
    except csv.Error as error:
        raise InputError(f"{path}: line {start}: {error}") from error
    if columns is None:
        raise InputError(f"{path}: is empty; its first line names the columns {list(required)}")


def _check_columns(columns: Sequence[str], required: Sequence[str], place: str) -> None:
    for name in required:
        if name not in columns:
            raise InputError(
                f"{place}: no column {name!r} in the header; it has: {', '.join(columns)}"
            )
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice:
        raise InputError(f"{place}: the column {twice!r} is there more than once: remove one")


def _read_json(text: str, path: Path, required: Sequence[str]) -> Iterator[Row]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: must hold a list of objects, not {type(entries).__name__}")
    for number, entry in enumerate(entries, start=1):
        place = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{place}: {json.dumps(entry)[:60]} is not an object")
        values = {}
        for name, value in entry.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float | None):
                raise InputError(f"{place}: {name!r} is neither a string nor a number")
            if value is not None and (written := str(value).strip()):
                values[name] = written
        missing = next((name for name in required if name not in values), None)
        if missing:
            raise InputError(f"{place}: has no {missing!r}")
        yield Row(place, values)
