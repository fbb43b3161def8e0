"""Readers of label files, and taxonomies of plain names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zsic_index.errors import LabelError
from zsic_index.formats.tables import read_text
from zsic_index.taxonomy import tables, trees
from zsic_index.taxonomy.builder import TaxonomyBuilder
from zsic_index.taxonomy.model import Taxonomy

_READERS: dict[str, Callable[[str, Path], TaxonomyBuilder]] = {
    ".txt": trees.read_outline,
    ".csv": tables.read_table,
    ".tsv": tables.read_table,
    ".json": trees.read_json,
    ".jsonl": trees.read_jsonl,
}


def read(path: str | Path, *, leaves_only: bool = False, ranks: Sequence[str] = ()) -> Taxonomy:
    """Read a label file.

    - ``.txt``: one label per line; blank lines and lines that start with ``#`` are skipped. A line
      that is indented more than the one before is below it.
    - ``.csv`` (commas or semicolons) and ``.tsv``: a header with ``label`` and any of ``id``,
      ``parent``, ``rank``, ``aliases``, ``template``, ``prompt`` and ``lang:de`` (or another
      tag). Several values in a cell are separated by ``|``. Without ``label``, two or more
      columns named after biological ranks: the lowest one that a row fills is its label, and
      those above are its parents. Other columns are ignored. Empty lines are skipped.
    - ``.json``: a list of strings, or of objects with those keys, lists for several values,
      ``lang`` as an object, and ``children`` to nest; ``.jsonl`` has one such value per line.

    Text is UTF-8, with or without a byte-order mark, or UTF-16 with one.

    A parent is given by its id, or by its name if only one node has that name. Every row, line or
    object is a label; a name that occurs only in a column of ranks above a label is a node but not
    a label. Without ids a repeated name is a duplicate, unless it has another path in an outline,
    in nested objects or under ranks.

    Args:
        path: the file.
        leaves_only: whether only nodes without children are labels.
        ranks: titles of columns that each hold a rank, from the top down, above the label.

    Raises:
        LabelError: for a missing or unreadable file, an unusable label, an unknown parent, or a
            cycle; the message names the file and the line or entry: in tables, the line on which
            the row starts.
        TemplateError: for a string that is not a template.
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
        builder = reader(text, path)
    elif reader is tables.read_table:
        builder = tables.read_table(text, path, ranks)
    else:
        raise LabelError(f"{path}: has no columns that could be ranks; leave them out")
    return builder.build(leaves_only=leaves_only)


def collect(names: Iterable[str], source: str = "labels") -> Taxonomy:
    """Return a flat taxonomy of names, without duplicates.

    Args:
        names: names of the labels.
        source: name of the input in messages.

    Raises:
        LabelError: for an empty or overlong label, a NUL or an unpaired surrogate, a value that is
            not a string, or without any label.
    """
    builder = TaxonomyBuilder(source, "label")
    for number, name in enumerate(names, start=1):
        builder.add_label(number, name)
    return builder.build()
