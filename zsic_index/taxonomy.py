"""Reading labels from text, CSV, TSV, JSON and JSONL files."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import LabelError

MAX_LABEL_LENGTH = 2_000

LABEL_COLUMN = "label"


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Checked labels and what was noticed about them.

    Attributes:
        labels: N distinct names in the order of their first mention.
        duplicates: names that were given again; the first mention is kept.
        twins: pairs of labels that differ only in case or Unicode form, which would split
            probability between them; both are kept.
    """

    labels: tuple[str, ...]
    duplicates: tuple[str, ...]
    twins: tuple[tuple[str, str], ...]


def read(path: str | Path) -> Taxonomy:
    """Read a label file.

    ``.txt`` holds one label a line (blank lines and lines that start with ``#`` are skipped);
    ``.csv`` and ``.tsv`` have a header with a ``label`` column, other columns are left alone;
    ``.json`` is a list of strings or of objects with ``label``; ``.jsonl`` has one such value a
    line. Text is UTF-8, with or without a byte-order mark, or UTF-16 with one.

    Raises:
        LabelError: when the file is missing, unreadable, or holds something that is not a label;
            the message names the file and, where there is one, the line.
    """
    path = Path(path)
    try:
        reader = _READERS[path.suffix.lower()]
    except KeyError:
        raise LabelError(
            f"{path}: unknown kind of label file {path.suffix!r}; use one of {', '.join(_READERS)}"
        ) from None
    try:
        text = _decode(path.read_bytes(), path)
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return collect(reader(text, path), source=str(path))


def collect(names: Iterable[tuple[str, str]] | Iterable[str], source: str = "labels") -> Taxonomy:
    """Check names, drop duplicates and find twins.

    Args:
        names: labels, or pairs of a place (for messages) and a label.
        source: what to call the input in messages.

    Raises:
        LabelError: for an empty or over-long label, a NUL or an unpaired surrogate, a value that
            is no string, or no label at all.
    """
    kept: dict[str, None] = {}
    folded: dict[str, str] = {}
    duplicates: dict[str, None] = {}
    twins: list[tuple[str, str]] = []
    for number, entry in enumerate(names, start=1):
        place, name = entry if isinstance(entry, tuple) else (f"{source}: label {number}", entry)
        name = _check(place, name)
        if name in kept:
            duplicates[name] = None
            continue
        kept[name] = None
        first = folded.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if first is not name:
            twins.append((first, name))
    if not kept:
        raise LabelError(f"{source}: no labels in it; give at least one")
    return Taxonomy(tuple(kept), tuple(duplicates), tuple(twins))


def _check(place: str, name: object) -> str:
    if not isinstance(name, str):
        raise LabelError(f"{place}: {name!r} is not a string; labels are strings")
    name = name.strip()
    if not name:
        raise LabelError(f"{place}: the label is empty")
    if len(name) > MAX_LABEL_LENGTH:
        raise LabelError(
            f"{place}: the label {name[:40]!r}... has {len(name)} characters; "
            f"the limit is {MAX_LABEL_LENGTH}"
        )
    if "\0" in name:
        raise LabelError(f"{place}: the label {name!r} holds a NUL character: remove it")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise LabelError(
            f"{place}: the label {name!r} holds half of a surrogate pair: mend the file's encoding"
        ) from None
    return name


def _decode(data: bytes, path: Path) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LabelError(
            f"{path}: line {line} is not {encoding.removesuffix('-sig').upper()} text; "
            "save the file as UTF-8"
        ) from None


Located = Iterable[tuple[str, str]]


def _read_text(text: str, path: Path) -> Located:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}: line {number}", line


def _read_table(text: str, path: Path, delimiter: str) -> Located:
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = rows.fieldnames or ()
        if LABEL_COLUMN not in columns:
            raise LabelError(
                f"{path}: no column {LABEL_COLUMN!r} in the header; it has: {', '.join(columns)}"
            )
        for row in rows:
            yield f"{path}: line {rows.line_num}", row[LABEL_COLUMN] or ""
    except csv.Error as error:
        raise LabelError(f"{path}: line {rows.line_num}: {error}") from error


def _read_csv(text: str, path: Path) -> Located:
    return _read_table(text, path, ",")


def _read_tsv(text: str, path: Path) -> Located:
    return _read_table(text, path, "\t")


def _read_json(text: str, path: Path) -> Located:
    values = _parse_json(text, str(path))
    if not isinstance(values, list):
        raise LabelError(f"{path}: must hold a list of labels, not {type(values).__name__}")
    for number, value in enumerate(values, start=1):
        place = f"{path}: entry {number}"
        yield place, _label_of(value, place)


def _read_jsonl(text: str, path: Path) -> Located:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            place = f"{path}: line {number}"
            yield place, _label_of(_parse_json(line, place), place)


def _parse_json(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{place}: not valid JSON: {error}") from error


def _label_of(value: object, place: str) -> str:
    name = value.get(LABEL_COLUMN) if isinstance(value, dict) else value
    if not isinstance(name, str):
        raise LabelError(
            f"{place}: {json.dumps(value)[:60]} is neither a string nor an object with a "
            f"string {LABEL_COLUMN!r}"
        )
    return name


_READERS: dict[str, Callable[[str, Path], Located]] = {
    ".txt": _read_text,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
}
