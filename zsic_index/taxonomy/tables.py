"""Tables: one label a row, or one rank a column."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import LabelError
from zsic_index.taxonomy.draft import ROOT, Draft
from zsic_index.taxonomy.entries import FIELDS, LANGUAGE, NOTHING, Details, path_key
from zsic_index.taxonomy.ranks import NULLS, USUAL

SEPARATOR = "|"
"""Between several parents, aliases, templates or prompts in one cell."""

_COMMON_NAMES = {"common_name", "common_names", "commonname", "vernacular_name", "vernacularname"}
"""Further columns of aliases in tables of one rank a column."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which column holds what; columns are counted from 0, and None is a column not there.

    Exactly one of ``label`` and ``ranks`` is given.
    """

    width: int
    label: int | None
    ranks: tuple[tuple[str, int], ...]
    id: int | None
    parent: int | None
    rank: int | None
    aliases: tuple[int, ...]
    languages: tuple[tuple[str, int], ...]
    templates: int | None
    prompts: int | None

    @property
    def extras(self) -> tuple[int, ...]:
        """Columns for more than names and ids."""
        some = (self.parent, self.rank, self.templates, self.prompts)
        return (
            *self.aliases,
            *(column for _, column in self.languages),
            *(column for column in some if column is not None),
        )


def read_csv(text: str, path: Path, ranks: Sequence[str] = ()) -> Draft:
    """Read a table with commas, or with semicolons as spreadsheets of some countries write it.

    Args:
        text: the table.
        path: its file, for messages.
        ranks: columns that hold a rank each, from the top down, above the label.
    """
    # max takes the comma where both are as good.
    delimiter = max(",;", key=lambda delimiter: _known_columns(text, delimiter))
    return _read(text, path, delimiter, ranks)


def _known_columns(text: str, delimiter: str) -> int:
    """Return how many columns of the header mean something, if this separates them."""
    try:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error:  # comes up again, with its line, when the file is read
        return 0
    folded = [_folded(cell) for cell in header]
    return sum(f in FIELDS or f in USUAL or f.startswith(LANGUAGE) for f in folded)


def _folded(title: str) -> str:
    return title.strip().casefold().replace(" ", "_")


def read_tsv(text: str, path: Path, ranks: Sequence[str] = ()) -> Draft:
    """Read a table with tabs; see ``read_csv``."""
    return _read(text, path, "\t", ranks)


def _read(text: str, path: Path, delimiter: str, ranks: Sequence[str]) -> Draft:
    draft = Draft(str(path), "line")
    rows = _rows(text, draft, delimiter)
    number, header = next(rows, (1, []))
    layout = _layout(header, number, draft, ranks)
    if layout.ranks:
        _read_ranks(rows, layout, draft)
    else:
        _read_labels(rows, layout, draft)
    return draft


Rows = Iterator[tuple[int, list[str]]]


def _rows(text: str, draft: Draft, delimiter: str) -> Rows:
    """Yield each row that is not blank, and the line that it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for row in reader:
            if any(row):
                yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        # Where an open quote is, not where the file ends.
        raise LabelError(
            f"{draft.place(number)}: {error}; a cell with a quote, a line end or the separator "
            "in it stands in double quotes, and quotes in it are doubled"
        ) from error


def _layout(header: Sequence[str], number: int, draft: Draft, chosen: Sequence[str]) -> _Layout:
    columns: dict[str, int] = {}
    languages: dict[str, int] = {}
    ranks: dict[str, int] = {}
    common_names: list[int] = []
    for position, cell in enumerate(header):
        title = cell.strip()
        folded = _folded(title)
        if folded.startswith(LANGUAGE):
            kind, name = languages, title[len(LANGUAGE) :].strip()
        elif folded in FIELDS:
            kind, name = columns, FIELDS[folded]
        elif folded in USUAL:
            kind, name = ranks, folded
        else:
            if folded in _COMMON_NAMES:
                common_names.append(position)
            continue
        if name in kind:
            draft.fail(number, f"the column {title!r} is there twice: remove or rename one")
        kind[name] = position
    label = columns.get("label")
    order: tuple[str, ...] = USUAL
    if chosen:
        order = tuple(map(_folded, chosen))
        ranks = _chosen(header, number, draft, order)
        if label is not None:
            # The lowest of them, and without a name as a rank.
            ranks, order, label = ranks | {"": label}, (*order, ""), None
    elif label is not None:
        ranks, common_names = {}, []
    elif len(ranks) < 2:
        draft.fail(
            number,
            f"no column 'label' in the header, nor two or more ranks such as genus and species; "
            f"it has: {', '.join(header)}",
        )
    return _Layout(
        width=len(header),
        label=label,
        ranks=tuple(sorted(ranks.items(), key=lambda rank: order.index(rank[0]))),
        id=columns.get("id"),
        parent=None if ranks else columns.get("parent"),
        rank=None if ranks else columns.get("rank"),
        aliases=(*([columns["aliases"]] if "aliases" in columns else []), *common_names),
        languages=tuple(languages.items()),
        templates=columns.get("template"),
        prompts=columns.get("prompt"),
    )


def _chosen(
    header: Sequence[str], number: int, draft: Draft, chosen: Sequence[str]
) -> dict[str, int]:
    """Return the columns that were chosen to be ranks."""
    positions = {_folded(cell): position for position, cell in enumerate(header)}
    for rank in chosen:
        if rank not in positions:
            draft.fail(number, f"no column {rank!r} in the header; it has: {', '.join(header)}")
    return {rank: positions[rank] for rank in chosen}


def _read_labels(rows: Rows, layout: _Layout, draft: Draft) -> None:
    assert layout.label is not None
    extras = layout.extras
    for number, row in rows:
        _fit(row, number, layout, draft)
        says_more = any(map(row.__getitem__, extras))
        details = _details(row, layout) if says_more else NOTHING
        draft.label(number, row[layout.label], details, id=_cell(row, layout.id))


def _read_ranks(rows: Rows, layout: _Layout, draft: Draft) -> None:
    extras = layout.extras
    names = [rank for rank, _ in layout.ranks]
    columns = [column for _, column in layout.ranks]
    branches = _Branches(names, draft)
    alone = {rank: Details(rank=rank) for rank in names}
    for number, row in rows:
        _fit(row, number, layout, draft)
        cells = tuple([row[column] for column in columns])
        while cells and not (name := _known(cells[-1])):
            cells = cells[:-1]
        if not cells:
            draft.fail(number, f"no name in any of {', '.join(names)}: give one, or remove the row")
        within, above = branches.of(cells[:-1], number)
        path = (*above, name)
        rank = names[len(above)]
        says_more = any(map(row.__getitem__, extras))
        node = draft.label(
            number,
            name,
            _details(row, layout, rank) if says_more else alone[rank],
            key=path_key(path),
            id=_cell(row, layout.id),
            within=within,
        )
        if len(path) < len(names):
            branches.add(path, node)


class _Branches:
    """Nodes of a table of ranks, by the cells from the top rank down to their own."""

    def __init__(self, ranks: Sequence[str], draft: Draft) -> None:
        self._ranks = ranks
        self._draft = draft
        self._nodes: dict[_Cells, int] = {}
        # By cells as they are written: most rows have those of a row before them.
        self._seen: dict[_Cells, tuple[int, _Cells]] = {}

    def add(self, path: _Cells, node: int) -> None:
        """Have later rows go below ``node``, if they have its cells and nothing had them before."""
        self._nodes.setdefault(path, node)

    def of(self, written: _Cells, number: int) -> tuple[int, _Cells]:
        """Return the lowest node that cells name, ROOT where all are null, and the cells cleaned.

        Nodes that are not there yet are made; null cells make none.
        """
        found = self._seen.get(written)
        if found is None:
            cells = tuple([_known(cell) for cell in written])
            found = self._seen[written] = (self._open(cells, number), cells)
        return found

    def _open(self, cells: _Cells, number: int) -> int:
        node = ROOT
        for width, name in enumerate(cells, start=1):
            if name:
                path = cells[:width]
                if path not in self._nodes:
                    self._nodes[path] = self._draft.branch(
                        number, name, self._ranks[width - 1], key=path_key(path), within=node
                    )
                node = self._nodes[path]
        return node


_Cells = tuple[str, ...]


def _fit(row: list[str], number: int, layout: _Layout, draft: Draft) -> None:
    """Make a row as wide as the header."""
    missing = layout.width - len(row)
    if missing > 0:
        row.extend([""] * missing)
    elif missing and any(row[layout.width :]):
        draft.fail(
            number,
            f"{len(row)} cells under a header of {layout.width}: put a cell with the separator "
            "in it in double quotes",
        )


def _known(cell: str) -> str:
    cell = cell.strip()
    return "" if cell in NULLS else cell


def _cell(row: list[str], column: int | None) -> str:
    return "" if column is None else row[column].strip()


def _several(row: list[str], column: int | None) -> tuple[str, ...]:
    if column is None or not row[column]:
        return ()
    return tuple(known for part in row[column].split(SEPARATOR) if (known := _known(part)))


def _details(row: list[str], layout: _Layout, rank: str = "") -> Details:
    return Details(
        parents=_several(row, layout.parent),
        rank=rank or _known(_cell(row, layout.rank)),
        aliases=tuple(alias for column in layout.aliases for alias in _several(row, column)),
        languages={tag: name for tag, column in layout.languages if (name := _known(row[column]))},
        templates=_several(row, layout.templates),
        prompts=_several(row, layout.prompts),
    )
