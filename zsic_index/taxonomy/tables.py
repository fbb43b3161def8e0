"""Label files that are tables: one label per row, or one rank per column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import LabelError
from zsic_index.formats.tables import NumberedRows, fold_title, parse_delimited
from zsic_index.taxonomy.builder import ROOT, TaxonomyBuilder
from zsic_index.taxonomy.entries import (
    FIELDS,
    LANGUAGE_PREFIX,
    NO_DETAILS,
    EntryDetails,
    make_path_key,
)
from zsic_index.taxonomy.ranks import NULL_CELLS, USUAL_RANKS

SEPARATOR = "|"
"""Separator of several parents, aliases, templates or prompts in one cell."""

_COMMON_NAMES = {"common_name", "common_names", "commonname", "vernacular_name", "vernacularname"}
"""Columns that hold aliases too, in tables with one rank per column."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Positions of the columns of a label table, from 0; None for a missing column.

    Exactly one of ``label`` and ``ranks`` is set.
    """

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
        """Columns with optional fields: all but names and ids."""
        single = (self.parent, self.rank, self.templates, self.prompts)
        return (
            *self.aliases,
            *(column for _, column in self.languages),
            *(column for column in single if column is not None),
        )


def read_table(text: str, path: Path, ranks: Sequence[str] = ()) -> TaxonomyBuilder:
    """Read a table with commas, semicolons or tabs; see ``formats.tables``.

    Args:
        text: the table.
        path: its file, for the separator and for messages.
        ranks: titles of columns that each hold a rank, from the top down, above the label.
    """
    builder = TaxonomyBuilder(str(path), "line")
    table = parse_delimited(text, path, _is_column, LabelError)
    columns = _find_columns(table.header, table.line, builder, ranks)
    if columns.ranks:
        _read_ranks(table.rows, columns, builder)
    else:
        _read_labels(table.rows, columns, builder)
    return builder


def _is_column(title: str) -> bool:
    """Return whether a folded title is that of a column which label files may have."""
    return title in FIELDS or title in USUAL_RANKS or title.startswith(LANGUAGE_PREFIX)


def _find_columns(
    header: Sequence[str], number: int, builder: TaxonomyBuilder, chosen: Sequence[str]
) -> _Columns:
    """Return the columns of a header; ``chosen`` are titles of those that hold a rank."""
    columns: dict[str, int] = {}
    languages: dict[str, int] = {}
    ranks: dict[str, int] = {}
    common_names: list[int] = []
    for position, cell in enumerate(header):
        title = cell.strip()
        folded = fold_title(title)
        if folded.startswith(LANGUAGE_PREFIX):
            kind, name = languages, title[len(LANGUAGE_PREFIX) :].strip()
        elif folded in FIELDS:
            kind, name = columns, FIELDS[folded]
        elif folded in USUAL_RANKS:
            kind, name = ranks, folded
        else:
            if folded in _COMMON_NAMES:
                common_names.append(position)
            continue
        if name in kind:
            builder.fail(number, f"the column {title!r} is there twice: remove or rename one")
        kind[name] = position
    label = columns.get("label")
    order: tuple[str, ...] = USUAL_RANKS
    if chosen:
        order = tuple(map(fold_title, chosen))
        ranks = _find_chosen(header, number, builder, order)
        if label is not None:
            # The label column is the lowest rank, one without a name.
            ranks, order, label = ranks | {"": label}, (*order, ""), None
    elif label is not None:
        ranks, common_names = {}, []
    elif len(ranks) < 2:
        builder.fail(
            number,
            f"no column 'label' in the header, nor two or more ranks such as genus and species; "
            f"it has: {', '.join(header)}",
        )
    return _Columns(
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


def _find_chosen(
    header: Sequence[str], number: int, builder: TaxonomyBuilder, chosen: Sequence[str]
) -> dict[str, int]:
    """Return rank → position of the columns that were chosen to be ranks."""
    positions = {fold_title(cell): position for position, cell in enumerate(header)}
    for rank in chosen:
        if rank not in positions:
            builder.fail(number, f"no column {rank!r} in the header; it has: {', '.join(header)}")
    return {rank: positions[rank] for rank in chosen}


def _read_labels(rows: NumberedRows, columns: _Columns, builder: TaxonomyBuilder) -> None:
    assert columns.label is not None
    extras = columns.extras
    for number, cells in rows:
        has_details = any(map(cells.__getitem__, extras))
        details = _details(cells, columns) if has_details else NO_DETAILS
        builder.add_label(number, cells[columns.label], details, id=_text(cells, columns.id))


def _read_ranks(rows: NumberedRows, columns: _Columns, builder: TaxonomyBuilder) -> None:
    extras = columns.extras
    ranks = [rank for rank, _ in columns.ranks]
    positions = [position for _, position in columns.ranks]
    branches = _BranchNodes(ranks, builder)
    mere_rank = {rank: EntryDetails(rank=rank) for rank in ranks}
    for number, cells in rows:
        names = tuple([cells[position] for position in positions])
        while names and not (name := _without_null(names[-1])):
            names = names[:-1]
        if not names:
            builder.fail(
                number, f"no name in any of {', '.join(ranks)}: give one, or remove the row"
            )
        within, above = branches.open(names[:-1], number)
        path = (*above, name)
        rank = ranks[len(above)]
        has_details = any(map(cells.__getitem__, extras))
        node = builder.add_label(
            number,
            name,
            _details(cells, columns, rank) if has_details else mere_rank[rank],
            key=make_path_key(path),
            id=_text(cells, columns.id),
            within=within,
        )
        if len(path) < len(ranks):
            branches.add(path, node)


_RankPath = tuple[str, ...]
"""Cells of a row from the top rank down to some rank; empty strings for missing ranks."""


class _BranchNodes:
    """Nodes above the labels in a table of ranks, by their path."""

    def __init__(self, ranks: Sequence[str], builder: TaxonomyBuilder) -> None:
        self._ranks = ranks
        self._builder = builder
        self._nodes: dict[_RankPath, int] = {}
        # Most rows repeat the cells of an earlier row, which need not be cleaned again.
        self._opened: dict[_RankPath, tuple[int, _RankPath]] = {}

    def add(self, path: _RankPath, node: int) -> None:
        """Put later rows with this path below ``node``, unless the path has a node already."""
        self._nodes.setdefault(path, node)

    def open(self, written: _RankPath, number: int) -> tuple[int, _RankPath]:
        """Return the lowest node on a path of cells as written, and the path without nulls.

        Missing nodes are added; null cells have none. The node is ROOT if all cells are null.
        """
        opened = self._opened.get(written)
        if opened is None:
            path = tuple([_without_null(cell) for cell in written])
            opened = self._opened[written] = (self._open_path(path, number), path)
        return opened

    def _open_path(self, path: _RankPath, number: int) -> int:
        node = ROOT
        for width, name in enumerate(path, start=1):
            if name:
                part = path[:width]
                if part not in self._nodes:
                    self._nodes[part] = self._builder.add_branch(
                        number, name, self._ranks[width - 1], key=make_path_key(part), within=node
                    )
                node = self._nodes[part]
        return node


def _without_null(cell: str) -> str:
    cell = cell.strip()
    return "" if cell in NULL_CELLS else cell


def _text(cells: list[str], column: int | None) -> str:
    return "" if column is None else cells[column].strip()


def _split(cells: list[str], column: int | None) -> tuple[str, ...]:
    """Return the values of a cell that holds several."""
    if column is None or not cells[column]:
        return ()
    return tuple(value for part in cells[column].split(SEPARATOR) if (value := _without_null(part)))


def _details(cells: list[str], columns: _Columns, rank: str = "") -> EntryDetails:
    return EntryDetails(
        parents=_split(cells, columns.parent),
        rank=rank or _without_null(_text(cells, columns.rank)),
        aliases=tuple(alias for column in columns.aliases for alias in _split(cells, column)),
        languages={
            tag: name for tag, column in columns.languages if (name := _without_null(cells[column]))
        },
        templates=_split(cells, columns.templates),
        prompts=_split(cells, columns.prompts),
    )
