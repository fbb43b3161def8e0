"""Tables with a header row: CSV, TSV, or a JSON list of objects.

Every table that the package reads (labels, thresholds, labelled images, lists of images) is read
here, so that a file in one dialect is read alike by all commands:

- ``decode_text``: the encodings and byte-order marks;
- ``choose_separator``: commas, semicolons or tabs. A further dialect of spreadsheets (a ``sep=;``
  line, say) belongs here;
- ``fold_title``: which titles of columns count as the same;
- ``parse_delimited``: rows with their line numbers, made as wide as the header.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zsic_index.errors import InputError

NumberedRows = Iterator[tuple[int, list[str]]]
"""Rows, each as the line on which it starts (from 1) and its cells."""


class DelimitedTable(NamedTuple):
    """A parsed CSV or TSV table.

    Attributes:
        header: titles of the columns as written; empty for a file without any text.
        line: line of the header.
        rows: rows below the header, none of them empty or narrower than the header.
    """

    header: list[str]
    line: int
    rows: NumberedRows


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table, or one object of a JSON list.

    Attributes:
        place: the file and the line or entry, for messages.
        values: column → text without spaces around it; empty cells are left out.
    """

    place: str
    values: dict[str, str]


def read_table_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[TableRow]:
    """Read the rows of a table in order; rows without any value are skipped.

    A ``.csv`` has commas or semicolons, a ``.tsv`` tabs; titles of columns count in any case, and
    other columns are ignored. A ``.json`` is a list of objects, their values strings or numbers.
    Text is UTF-8, with or without a byte-order mark, or UTF-16 with one.

    Args:
        path: the file.
        required: folded titles of columns that must be there.
        optional: folded titles of columns that may be there.

    Raises:
        InputError: when it is missing, of another kind, broken, or lacks a column; the message
            names the file and, where there is one, the line on which the row starts.
    """
    text = read_text(path)
    match path.suffix.lower():
        case ".csv" | ".tsv":
            rows = _read_delimited(text, path, required, optional)
        case ".json":
            rows = _read_json(text, path, required)
        case suffix:
            raise InputError(f"{path}: unknown kind of table {suffix!r}; use .csv, .tsv or .json")
    yield from rows


def read_text(path: Path, error_class: type[InputError] = InputError) -> str:
    """Read a text file; see ``decode_text``.

    Raises:
        InputError: an ``error_class``, when it cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise error_class(f"{path}: cannot be read: {error.strerror or error}") from error
    return decode_text(data, path, error_class)


def decode_text(data: bytes, path: Path, error_class: type[InputError] = InputError) -> str:
    """Decode the bytes of a file: UTF-8, with or without a byte-order mark, or UTF-16 with one.

    Args:
        data: content of the file.
        path: the file, for messages.
        error_class: class of the error.

    Raises:
        InputError: an ``error_class`` that names the first bad line.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise error_class(
            f"{path}: line {line} is not {encoding.removesuffix('-sig').upper()} text; "
            "save the file as UTF-8"
        ) from None


def fold_title(title: str) -> str:
    """Return a column's title in lower case, with underscores for spaces."""
    return title.strip().casefold().replace(" ", "_")


def choose_separator(text: str, suffix: str, is_column: Callable[[str], bool]) -> str:
    """Return the character between the cells of a table.

    A ``.tsv`` has tabs. Anything else has commas or, as spreadsheets of some countries write it,
    semicolons: the one that finds more known columns in the header, a comma when both find as many.

    Args:
        text: the table.
        suffix: the ending of its file, in lower case.
        is_column: whether a folded title is that of a column which the caller reads.
    """
    if suffix == ".tsv":
        return "\t"

    def known_columns(separator: str) -> int:
        try:
            for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
                titles = [fold_title(cell) for cell in cells]
                if any(titles):
                    return sum(map(is_column, titles))
        except csv.Error:
            # Raised again, with its line, when the table is read.
            pass
        return 0

    return max(",;", key=known_columns)


def parse_delimited(
    text: str,
    path: Path,
    is_column: Callable[[str], bool],
    error_class: type[InputError] = InputError,
) -> DelimitedTable:
    """Parse a CSV or TSV table; its rows are parsed as they are taken.

    Args:
        text: the table.
        path: its file, for the separator and for messages.
        is_column: see ``choose_separator``.
        error_class: class of the errors.

    Raises:
        InputError: an ``error_class`` for broken quotes or a row wider than the header; the message
            names the line on which the row starts.
    """
    separator = choose_separator(text, path.suffix.lower(), is_column)
    rows = _numbered_rows(text, path, separator, error_class)
    line, header = next(rows, (1, []))
    return DelimitedTable(header, line, rows)


def _numbered_rows(
    text: str, path: Path, separator: str, error_class: type[InputError]
) -> NumberedRows:
    """Yield the header and each row that is not empty, with the line that it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    width: int | None = None
    line = 1
    try:
        for cells in reader:
            if width is None:
                if any(map(str.strip, cells)):
                    width = len(cells)
                    yield line, cells
            elif any(cells):
                if len(cells) < width:
                    cells.extend([""] * (width - len(cells)))
                elif len(cells) > width and any(cells[width:]):
                    raise error_class(
                        f"{path}: line {line}: {len(cells)} cells under a header of {width}: put a "
                        "cell with the separator in it in double quotes"
                    )
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        # The line on which an open quote begins, not the end of the file.
        raise error_class(
            f"{path}: line {line}: {error}; a cell with a quote, a line end or the separator "
            "in it stands in double quotes, and quotes in it are doubled"
        ) from error


def _read_delimited(
    text: str, path: Path, required: Sequence[str], optional: Sequence[str]
) -> Iterator[TableRow]:
    names = (*required, *optional)
    table = parse_delimited(text, path, names.__contains__)
    if not table.header:
        raise InputError(f"{path}: is empty; its first line names the columns {list(required)}")
    columns = _columns(table.header, f"{path}: line {table.line}", names, required)
    for line, cells in table.rows:
        if any(map(str.strip, cells)):
            values = {name: cells[column].strip() for name, column in columns.items()}
            place = f"{path}: line {line}"
            yield TableRow(place, {name: value for name, value in values.items() if value})


def _columns(
    header: Sequence[str], place: str, names: Sequence[str], required: Sequence[str]
) -> dict[str, int]:
    """Return the position of each column that has one of ``names``."""
    columns: dict[str, int] = {}
    for position, title in enumerate(header):
        name = fold_title(title)
        if name in columns:
            raise InputError(
                f"{place}: the column {title.strip()!r} is there twice: remove or rename one"
            )
        if name in names:
            columns[name] = position
    for name in required:
        if name not in columns:
            raise InputError(
                f"{place}: no column {name!r} in the header; it has: {', '.join(header)}"
            )
    return columns


def _read_json(text: str, path: Path, required: Sequence[str]) -> Iterator[TableRow]:
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
            if value is not None and (stripped := str(value).strip()):
                values[name] = stripped
        missing = next((name for name in required if name not in values), None)
        if missing:
            raise InputError(f"{place}: has no {missing!r}")
        yield TableRow(place, values)
