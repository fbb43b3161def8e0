"""Tags as photo programs keep them: which XMP properties hold keywords, and in what form.

A tag is a path, such as ``("ai", "animal", "dog")``. Each property writes it in its own way:
``dc:subject`` has the leaf alone, the others join the parts with a separator of theirs. A part that
holds a separator would be read as two levels, and programs that translate one property into another
(digiKam: ``/`` to ``|``) would do so later even where it was none at first. So ``/`` and ``|`` in a
part are both written as look-alikes that no program takes for a separator: ``∕`` (U+2215) and ``∣``
(U+2223), which Unicode normalisation leaves as they are. That goes for the leaf in ``dc:subject``
too: a program that writes it anew from its own tags must come to the same value.

Programs do not take the union of these properties: the first that is not empty wins. So a property
that was empty starts with all of the user's keywords, wherever they stand.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from zsic_index.errors import InputError

TagPath = tuple[str, ...]
"""A tag from its root to its leaf."""

DEFAULT_ROOT = "ai"
"""The first part of automatic tags, unless the user chooses another."""

MAX_TAG_LENGTH = 2_000
"""The most characters of a tag, all parts together."""

_RESERVED_ROOTS = ("auto",)  # digiKam's own tagger empties it.

_UNFIT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control characters, halves of surrogate pairs, ends of lines."""

_ESCAPES = str.maketrans({"/": "\N{DIVISION SLASH}", "|": "\N{DIVIDES}"})


@dataclass(frozen=True, slots=True)
class KeywordProperty:
    """One XMP property that programs read keywords from.

    Attributes:
        name: as it is usually written; also its key in records.
        uri: its namespace.
        container: the kind of RDF container that it is created with.
        separator: between the parts of a path; None where only the leaf is written.
        created: whether it is created where it is missing.
        written: whether tags are written to it at all.
    """

    name: str
    uri: str
    container: str
    separator: str | None
    created: bool = True
    written: bool = True

    @property
    def prefix(self) -> str:
        """The usual prefix."""
        return self.name.partition(":")[0]

    @property
    def local(self) -> str:
        """The name without its prefix."""
        return self.name.partition(":")[2]

    def value(self, path: TagPath) -> str:
        """Return how this property writes a tag."""
        parts = [part.translate(_ESCAPES) for part in path]
        return parts[-1] if self.separator is None else self.separator.join(parts)

    def path(self, value: str) -> TagPath:
        """Return the tag that a value stands for; empty for one without any text.

        In ``dc:subject`` a ``|`` separates levels as well: darktable reads it so.
        """
        parts = (part.strip() for part in value.split(self.separator or "|"))
        return tuple(part for part in parts if part)


TAGS_LIST = KeywordProperty("digiKam:TagsList", "http://www.digikam.org/ns/1.0/", "Seq", "/")
HIERARCHICAL = KeywordProperty(
    "lr:hierarchicalSubject", "http://ns.adobe.com/lightroom/1.0/", "Bag", "|"
)
SUBJECT = KeywordProperty("dc:subject", "http://purl.org/dc/elements/1.1/", "Bag", None)

PROPERTIES = (
    TAGS_LIST,
    KeywordProperty(
        "MicrosoftPhoto:LastKeywordXMP",
        "http://ns.microsoft.com/photo/1.0/",
        "Bag",
        "/",
        created=False,
    ),
    HIERARCHICAL,
    KeywordProperty(
        "mediapro:CatalogSets",
        "http://ns.iview-media.com/mediapro/1.0/",
        "Bag",
        "|",
        created=False,
        written=False,
    ),
    SUBJECT,
)
"""All that keywords are read from, in the order of the programs' preference."""

WRITTEN = tuple(kind for kind in PROPERTIES if kind.written)


def exact(value: str) -> str:
    """Return what two spellings of one value have in common: Unicode form and outer space aside."""
    return unicodedata.normalize("NFC", value.strip())


def folded(name: str) -> str:
    """Return what two names are the same by: as they are written, case aside."""
    return unicodedata.normalize("NFC", exact(name).translate(_ESCAPES).casefold())


def folded_path(path: TagPath) -> TagPath:
    """Return what two tags are the same by."""
    return tuple(map(folded, path))


def check_tag(path: TagPath) -> TagPath:
    """Return a tag without space around its parts, or say why no program could hold it.

    Raises:
        InputError: for an empty path or part, one with a character that XML has no place for or
            that would break a line, or one that is too long.
    """
    checked = tuple(part.strip() for part in path)
    shown = "/".join(checked)[:80]
    if not checked or not all(checked):
        raise InputError(f"tag {shown!r}: has an empty part; give a name for each level")
    if sum(map(len, checked)) > MAX_TAG_LENGTH:
        raise InputError(
            f"tag {shown!r}...: is longer than {MAX_TAG_LENGTH} characters; shorten the label"
        )
    for character in "".join(checked):
        if unicodedata.category(character) in _UNFIT or character in "\ufffe\uffff":
            raise InputError(
                f"tag {shown!r}: holds {character!r}, which keywords cannot; take it out of the "
                "label"
            )
    return checked


def check_root(root: str) -> str:
    """Return the root of automatic tags without space around it, or say why it will not do.

    Raises:
        InputError: when it is no tag, or one that another program empties.
    """
    (checked,) = check_tag((root,))
    if folded(checked) in _RESERVED_ROOTS:
        raise InputError(
            f"root {root!r}: digiKam's own tagger empties it; use another, such as {DEFAULT_ROOT!r}"
        )
    return checked


def distinct(paths: Iterable[TagPath]) -> tuple[TagPath, ...]:
    """Return paths in order, each once, case aside."""
    kept: dict[TagPath, TagPath] = {}
    for path in paths:
        kept.setdefault(folded_path(path), path)
    return tuple(kept.values())


def union(
    values: Mapping[str, Collection[str]], embedded: Iterable[TagPath] = ()
) -> tuple[TagPath, ...]:
    """Return the tags of a photo from every keyword property, in order, each once.

    Args:
        values: the values of the properties, by their name.
        embedded: tags from within the photo.
    """
    paths = [
        path
        for kind in PROPERTIES
        for value in values.get(kind.name, ())
        if (path := kind.path(value))
    ]
    return distinct([*paths, *embedded])


def starting_values(kind: KeywordProperty, tags: Iterable[TagPath]) -> tuple[str, ...]:
    """Return what a property that is still empty starts with.

    ``dc:subject`` gets every leaf. The others get every path, but for single names that are a level
    of a longer path: programs write these to ``dc:subject`` beside the path itself.

    Args:
        kind: the property.
        tags: what ``union`` gave.
    """
    tags = list(tags)
    if kind.separator is not None:
        levels = {folded(part) for path in tags if len(path) > 1 for part in path}
        tags = [path for path in tags if len(path) > 1 or folded(path[0]) not in levels]
    return without_twins(kind, (kind.value(path) for path in tags))


def without_twins(
    kind: KeywordProperty, values: Iterable[str], present: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return values in order, without those that stand for a tag that is there already."""
    seen = {folded_path(kind.path(value)) for value in present}
    kept = []
    for value in values:
        tag = folded_path(kind.path(value))
        if tag not in seen:
            seen.add(tag)
            kept.append(value)
    return tuple(kept)
