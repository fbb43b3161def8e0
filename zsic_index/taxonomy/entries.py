"""Fields of an entry in a label file, and their names in every format."""

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
"""Column of a table or key of a JSON object → field."""

LANGUAGE_PREFIX = "lang:"
"""Prefix of columns and keys with names in a language, such as ``lang:de``."""


@dataclass(frozen=True, slots=True)
class EntryDetails:
    """Optional fields of an entry: all but its name, key and id.

    Attributes:
        parents: ids or names of its parents, as written.
        rank: rank; empty without one.
        aliases: other names.
        languages: language tag → name.
        templates: templates for the entry and all nodes below it.
        prompts: whole prompts, used instead of templates.
    """

    parents: tuple[str, ...] = ()
    rank: str = ""
    aliases: tuple[str, ...] = ()
    languages: Mapping[str, str] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


NO_DETAILS = EntryDetails()
"""Shared by the many entries that are a mere name."""


def make_path_key(names: Sequence[str]) -> str:
    r"""Return the key of an entry without an id: names from the root down, joined by ``/``.

    The key of a root is its name, unchanged. In longer paths ``/`` and ``\`` in names are escaped
    by a ``\``.
    """
    if len(names) == 1:
        return names[0]
    path = "/".join(names)
    if path.count("/") == len(names) - 1 and "\\" not in path:
        return path
    return "/".join(name.replace("\\", "\\\\").replace("/", "\\/") for name in names)
