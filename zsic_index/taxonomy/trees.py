"""Label files that are not tables: plain text, outlines, JSON and JSONL."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zsic_index.errors import LabelError
from zsic_index.taxonomy.builder import ROOT, TaxonomyBuilder
from zsic_index.taxonomy.entries import (
    FIELDS,
    LANGUAGE_PREFIX,
    NO_DETAILS,
    EntryDetails,
    make_path_key,
)

_Path = tuple[str, ...]
"""Names from the root down to a node."""


def read_outline(text: str, path: Path) -> TaxonomyBuilder:
    """Read one label per line; an indented line is below the last line that is indented less."""
    builder = TaxonomyBuilder(str(path), "line")
    outline: list[tuple[str, int, _Path]] = []  # lines that may get children: indent, node, names
    for number, line in _lines(text):
        name = line.strip()
        if not name or name[0] == "#":
            continue
        if line[0] == name[0] and len(outline) < 2 and not (outline and outline[0][0]):
            # A flat list so far: only the last line may get children.
            outline = [("", builder.add_label(number, name), (name,))]
            continue
        indent = line[: len(line) - len(line.lstrip())]
        within, names = _close(outline, indent, number, builder)
        names = (*names, name)
        node = builder.add_label(number, name, key=make_path_key(names), within=within)
        outline.append((indent, node, names))
    return builder


def _close(
    outline: list[tuple[str, int, _Path]], indent: str, number: int, builder: TaxonomyBuilder
) -> tuple[int, _Path]:
    """Drop lines that a line with this indent is not below; return its parent and its path."""
    if not outline:
        return ROOT, ()
    previous = outline[-1][0]
    if indent == previous:
        outline.pop()
    elif not indent.startswith(previous):
        if not previous.startswith(indent):
            builder.fail(
                number,
                f"the indent {indent!r} does not go with {previous!r} above: use either tabs or "
                "spaces throughout",
            )
        while outline and outline[-1][0] != indent:
            outline.pop()
        if not outline:
            builder.fail(
                number,
                f"indented by {len(indent)}, which matches no line above that it could be beside: "
                "indent it like one of them",
            )
        outline.pop()
    return outline[-1][1:] if outline else (ROOT, ())


def read_json(text: str, path: Path) -> TaxonomyBuilder:
    """Read a list of names and objects; entries in ``children`` are numbered too."""
    builder = TaxonomyBuilder(str(path), "entry")
    values = _parse(text, str(path))
    if not isinstance(values, list):
        raise LabelError(f"{path}: must hold a list of labels, not {type(values).__name__}")
    number = 0
    for value in values:
        number = _add(value, number + 1, builder, counting=1)
    return builder


def read_jsonl(text: str, path: Path) -> TaxonomyBuilder:
    """Read one name or object per line."""
    builder = TaxonomyBuilder(str(path), "line")
    for number, line in _lines(text):
        if line.strip():
            _add(_parse(line, builder.locate(number)), number, builder, counting=0)
    return builder


def _add(value: Any, number: int, builder: TaxonomyBuilder, *, counting: int) -> int:
    """Add a value and all its children; ``number`` grows by ``counting`` with each of them.

    Returns:
        The number of the last one.
    """
    waiting: list[tuple[Any, int, _Path]] = [(value, ROOT, ())]
    number -= counting
    while waiting:
        value, within, names = waiting.pop()
        number += counting
        if isinstance(value, str):
            builder.add_label(
                number, value, key=make_path_key((*names, value.strip())), within=within
            )
            continue
        fields = _fields(value, number, builder)
        name = fields["label"].strip()
        names = (*names, name)
        node = builder.add_label(
            number,
            name,
            _details(fields, number, builder),
            key=make_path_key(names),
            id="".join(_texts(fields, "id", number, builder)[:1]),
            within=within,
        )
        children = fields.get("children") or []
        if not isinstance(children, list):
            builder.fail(number, f"'children' of {name!r} must be a list")
        waiting.extend((child, node, names) for child in reversed(children))
    return number


def _fields(value: Any, number: int, builder: TaxonomyBuilder) -> dict[str, Any]:
    """Return the values of an object by field; refuse one without a label."""
    fields: dict[str, Any] = {}
    if isinstance(value, dict):
        fields = {FIELDS.get(key) or key: item for key, item in value.items()}
    if not isinstance(fields.get("label"), str):
        builder.fail(
            number,
            f"{json.dumps(value)[:60]} is neither a string nor an object with a string 'label'",
        )
    return fields


def _details(fields: dict[str, Any], number: int, builder: TaxonomyBuilder) -> EntryDetails:
    if fields.keys() <= {"id", "label", "children"}:
        return NO_DETAILS
    languages = fields.get("lang") or {}
    if not isinstance(languages, dict):
        builder.fail(number, '\'lang\' must be an object such as {"de": "Rotfuchs"}')
    tagged = {LANGUAGE_PREFIX + tag: name for tag, name in languages.items()}
    tagged |= {key: name for key, name in fields.items() if key.startswith(LANGUAGE_PREFIX)}
    return EntryDetails(
        parents=_texts(fields, "parent", number, builder),
        rank="".join(_texts(fields, "rank", number, builder)[:1]),
        aliases=_texts(fields, "aliases", number, builder),
        languages={
            key.removeprefix(LANGUAGE_PREFIX): names[0]
            for key in tagged
            if (names := _texts(tagged, key, number, builder))
        },
        templates=_texts(fields, "template", number, builder),
        prompts=_texts(fields, "prompt", number, builder),
    )


def _texts(
    fields: dict[str, Any], key: str, number: int, builder: TaxonomyBuilder
) -> tuple[str, ...]:
    """Return the values of a field, a string, an integer or a list of them, as strings."""
    value = fields.get(key)
    if value is None or value == []:
        return ()
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str | int) or isinstance(item, bool):
            builder.fail(number, f"{key!r} holds {json.dumps(item)[:40]}; give a string")
    return tuple(text for item in values if (text := str(item).strip()))


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{place}: not valid JSON: {error}") from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # str.splitlines would also split at separators such as U+2028 inside of JSON strings.
    return enumerate(io.StringIO(text, newline=None), start=1)
