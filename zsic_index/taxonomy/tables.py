"""Tables: one label a row, or one rank a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import LabelError
from zsic_index.formats.tables import NumberedRows, fold_title, parse_delimited
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


def read_table(text: str, path: Path, ranks: Sequence[str] = ()) -> Draft:
    """Read a table with commas, semicolons or tabs; see ``formats.tables``.

    Args:
        text: the table.
        path: its file, for the separator and for messages.
        ranks: columns that hold a rank each, from the top down, above the label.
    """
    draft = Draft(str(path), "line")
    table = parse_delimited(text, path, _is_column, LabelError)
    layout = _layout(table.header, table.line, draft, ranks)
    if layout.ranks:
        _read_ranks(table.rows, layout, draft)
    else:
        _read_labels(table.rows, layout, draft)
    return draft


def _is_column(title: str) -> bool:
    return title in FIELDS or title in USUAL or title.startswith(LANGUAGE)


def _layout(header: Sequence[str], number: int, draft: Draft, chosen: Sequence[str]) -> _Layout:
    columns: dict[str, int] = {}
    languages: dict[str, int] = {}
    ranks: dict[str, int] = {}
    common_names: list[int] = []
    for position, cell in enumerate(header):
        title = cell.strip()
        folded = fold_title(title)
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
        order = tuple(map(fold_title, chosen))
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
    positions = {fold_title(cell): position for position, cell in enumerate(header)}
    for rank in chosen:
        if rank not in positions:
            draft.fail(number, f"no column {rank!r} in the header; it has: {', '.join(header)}")
    return {rank: positions[rank] for rank in chosen}


def _read_labels(rows: NumberedRows, layout: _Layout, draft: Draft) -> None:
    assert layout.label is not None
    extras = layout.extras
    for number, row in rows:
        says_more = any(map(row.__getitem__, extras))
        details = _details(row, layout) if says_more else NOTHING
        draft.label(number, row[layout.label], details, id=_cell(row, layout.id))


def _read_ranks(rows: NumberedRows, layout: _Layout, draft: Draft) -> None:
    extras = layout.extras
    names = [rank for rank, _ in layout.ranks]
    columns = [column for _, column in layout.ranks]
    branches = _Branches(names, draft)
    alone = {rank: Details(rank=rank) for rank in names}
    for number, row in rows:
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
