"""Plain text and JSON: lists, outlines, and objects inside objects."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zsic_index.errors import LabelError
from zsic_index.taxonomy.draft import ROOT, Draft
from zsic_index.taxonomy.entries import FIELDS, LANGUAGE, NOTHING, Details, path_key

_Path = tuple[str, ...]
"""Names from the root down to a node."""


def read_text(text: str, path: Path) -> Draft:
    """Read one label a line; an indented line is below the last one that is indented less."""
    draft = Draft(str(path), "line")
    outline: list[tuple[str, int, _Path]] = []  # the open lines: indent, node, names
    for number, line in _lines(text):
        name = line.strip()
        if not name or name[0] == "#":
            continue
        if line[0] == name[0] and len(outline) < 2 and not (outline and outline[0][0]):
            # A flat list, so far: all there is to remember is the last line.
            outline = [("", draft.label(number, name), (name,))]
            continue
        indent = line[: len(line) - len(line.lstrip())]
        within, names = _close(outline, indent, number, draft)
        names = (*names, name)
        node = draft.label(number, name, key=path_key(names), within=within)
        outline.append((indent, node, names))
    return draft


def _close(
    outline: list[tuple[str, int, _Path]], indent: str, number: int, draft: Draft
) -> tuple[int, _Path]:
    """Close the lines that one of this indent is not below; return its parent and its names."""
    if not outline:
        return ROOT, ()
    closed = outline[-1][0]
    if indent == closed:
        outline.pop()
    elif not indent.startswith(closed):
        if not closed.startswith(indent):
            draft.fail(
                number,
                f"the indent {indent!r} does not go with {closed!r} above: use either tabs or "
                "spaces throughout",
            )
        while outline and outline[-1][0] != indent:
            outline.pop()
        if not outline:
            draft.fail(
                number,
                f"indented by {len(indent)}, as no line above it that is still open: indent it "
                "like the line that it belongs beside",
            )
        outline.pop()
    return outline[-1][1:] if outline else (ROOT, ())


def read_json(text: str, path: Path) -> Draft:
    """Read a list of names and objects; entries are counted with all that is in ``children``."""
    draft = Draft(str(path), "entry")
    values = _parse(text, str(path))
    if not isinstance(values, list):
        raise LabelError(f"{path}: must hold a list of labels, not {type(values).__name__}")
    number = 0
    for value in values:
        number = _add(value, number + 1, draft, counting=1)
    return draft


def read_jsonl(text: str, path: Path) -> Draft:
    """Read one name or object a line."""
    draft = Draft(str(path), "line")
    for number, line in _lines(text):
        if line.strip():
            _add(_parse(line, draft.place(number)), number, draft, counting=0)
    return draft


def _add(value: Any, number: int, draft: Draft, *, counting: int) -> int:
    """Take in a value and its children; ``number`` grows by ``counting`` with each of them.

    Returns:
        The number of the last.
    """
    waiting: list[tuple[Any, int, _Path]] = [(value, ROOT, ())]
    number -= counting
    while waiting:
        value, within, names = waiting.pop()
        number += counting
        if isinstance(value, str):
            draft.label(number, value, key=path_key((*names, value.strip())), within=within)
            continue
        fields = _fields(value, number, draft)
        name = fields["label"].strip()
        names = (*names, name)
        node = draft.label(
            number,
            name,
            _details(fields, number, draft),
            key=path_key(names),
            id="".join(_texts(fields, "id", number, draft)[:1]),
            within=within,
        )
        children = fields.get("children") or []
        if not isinstance(children, list):
            draft.fail(number, f"'children' of {name!r} must be a list")
        waiting.extend((child, node, names) for child in reversed(children))
    return number


def _fields(value: Any, number: int, draft: Draft) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(value, dict):
        for key, item in value.items():
            found[FIELDS.get(key) or key] = item
    if not isinstance(found.get("label"), str):
        draft.fail(
            number,
            f"{json.dumps(value)[:60]} is neither a string nor an object with a string 'label'",
        )
    return found


def _details(fields: dict[str, Any], number: int, draft: Draft) -> Details:
    if fields.keys() <= {"id", "label", "children"}:
        return NOTHING
    languages = fields.get("lang") or {}
    if not isinstance(languages, dict):
        draft.fail(number, '\'lang\' must be an object such as {"de": "Rotfuchs"}')
    tagged = {LANGUAGE + tag: name for tag, name in languages.items()}
    tagged |= {key: name for key, name in fields.items() if key.startswith(LANGUAGE)}
    return Details(
        parents=_texts(fields, "parent", number, draft),
        rank="".join(_texts(fields, "rank", number, draft)[:1]),
        aliases=_texts(fields, "aliases", number, draft),
        languages={
            key.removeprefix(LANGUAGE): found[0]
            for key in tagged
            if (found := _texts(tagged, key, number, draft))
        },
        templates=_texts(fields, "template", number, draft),
        prompts=_texts(fields, "prompt", number, draft),
    )


def _texts(fields: dict[str, Any], key: str, number: int, draft: Draft) -> tuple[str, ...]:
    """Return what a field holds: a string, a whole number as one, or a list of those."""
    value = fields.get(key)
    if value is None or value == []:
        return ()
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str | int) or isinstance(item, bool):
            draft.fail(number, f"{key!r} holds {json.dumps(item)[:40]}; give a string")
    return tuple(text for item in values if (text := str(item).strip()))


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{place}: not valid JSON: {error}") from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Lines end as files' lines do; str.splitlines would also end them inside JSON strings.
    return enumerate(io.StringIO(text, newline=None), start=1)
