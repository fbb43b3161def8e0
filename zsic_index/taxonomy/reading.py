"""From a file, or names, to a taxonomy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zsic_index.errors import LabelError
from zsic_index.formats.tables import read_text
from zsic_index.taxonomy import tables, trees
from zsic_index.taxonomy.draft import Draft
from zsic_index.taxonomy.model import Taxonomy

_READERS: dict[str, Callable[[str, Path], Draft]] = {
    ".txt": trees.read_text,
    ".csv": tables.read_table,
    ".tsv": tables.read_table,
    ".json": trees.read_json,
    ".jsonl": trees.read_jsonl,
}


def read(path: str | Path, *, leaves_only: bool = False, ranks: Sequence[str] = ()) -> Taxonomy:
    """Read a label file.

    - ``.txt``: one label a line; blank lines and lines that start with ``#`` are skipped. A line
      that is indented more than the one before is below it.
    - ``.csv`` (commas or semicolons) and ``.tsv``: a header with ``label`` and any of ``id``,
      ``parent``, ``rank``, ``aliases``, ``template``, ``prompt`` and ``lang:de`` (or another
      tag). Several values in a cell have ``|`` between them. Without ``label``, two or more
      columns named after biologists' ranks: the lowest one that a row fills is its label, and
      those above are its parents. Other columns are left alone.
    - ``.json``: a list of strings, or of objects with those keys, lists for several values,
      ``lang`` as an object, and ``children`` to nest; ``.jsonl`` has one such value a line.

    Text is UTF-8, with or without a byte-order mark, or UTF-16 with one.

    A parent is named by its id, or by its name where just one node has that. Every row, line or
    object is a label; what only stands in a column of ranks above a label is a node without
    being one. Without ids a name that comes again is a duplicate, unless it is somewhere else in
    an outline, in nested objects or under ranks.

    Args:
        path: the file.
        leaves_only: take only those as labels that have nothing below them.
        ranks: columns of a table that hold a rank each, from the top down, above the label.

    Raises:
        LabelError: when the file is missing, unreadable, or holds something that is not a label,
            a parent that is not there, or a cycle; the message names the file and, where there is
            one, the line: in tables that on which the row starts.
        TemplateError: for a template that is none.
    """
    path = Path(path)
    try:
        reader = _READERS[path.suffix.lower()]
    except KeyError:
        raise LabelError(
            f"{path}: unknown kind of label file {path.suffix!r}; use one of {', '.join(_READERS)}"
        ) from None
    text = read_text(path, LabelError)
    if not ranks:
        draft = reader(text, path)
    elif reader is tables.read_table:
        draft = tables.read_table(text, path, ranks)
    else:
        raise LabelError(f"{path}: has no columns that could be ranks; leave them out")
    return draft.finish(leaves_only=leaves_only)


def collect(names: Iterable[str], source: str = "labels") -> Taxonomy:
    """Check names, drop duplicates and find twins; the labels have no parents.

    Args:
        names: labels.
        source: what to call the input in messages.

    Raises:
        LabelError: for an empty or over-long label, a NUL or an unpaired surrogate, a value that
            is no string, or no label at all.
    """
    draft = Draft(source, "label")
    for number, name in enumerate(names, start=1):
        draft.label(number, name)
    return draft.finish()
