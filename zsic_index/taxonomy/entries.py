"""What an entry of a label file may say, and what its parts are called in every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FIELDS = {
    "id": "id",
    "label": "label",
    "parent": "parent",
    "parents": "parent",
    "rank": "rank",
    "alias": "aliases",
    "aliases": "aliases",
    "template": "template",
    "templates": "template",
    "prompt": "prompt",
    "prompts": "prompt",
}
"""Columns of tables and keys of objects, and the field that each means."""

LANGUAGE = "lang:"
"""Goes before a language tag in the name of a column or key: names in that language."""


@dataclass(frozen=True, slots=True)
class Details:
    """What an entry may say beside its name.

    Attributes:
        parents: ids or names, as written.
        rank: its rank; empty when it has none.
        aliases: other names.
        languages: names by language tag.
        templates: for it and all below it.
        prompts: whole prompts, instead of templates.
    """

    parents: tuple[str, ...] = ()
    rank: str = ""
    aliases: tuple[str, ...] = ()
    languages: Mapping[str, str] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


NOTHING = Details()


def path_key(names: Sequence[str]) -> str:
    r"""Return the key of an entry without an id: names from the root down, joined by ``/``.

    A root's key is its name as it is. Below it, a ``/`` or ``\`` of a name has a ``\`` before it.
    """
    if len(names) == 1:
        return names[0]
    path = "/".join(names)
    if path.count("/") == len(names) - 1 and "\\" not in path:
        return path
    return "/".join(name.replace("\\", "\\\\").replace("/", "\\/") for name in names)
