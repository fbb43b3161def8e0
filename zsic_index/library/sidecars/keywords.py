"""Keywords as photo programs store them: the XMP properties that contain them, and their form.

A tag is a path, such as ``("ai", "animal", "dog")``. Each property writes it differently:
``dc:subject`` has the leaf alone; the others join the parts with a separator of their own. A part
with a separator in it would be read as two levels, perhaps only later: digiKam translates one
property into another and replaces ``/`` by ``|``. Both ``/`` and ``|`` in a part are therefore
written as look-alikes that no program takes for a separator: ``∕`` (U+2215) and ``∣`` (U+2223),
which Unicode normalisation preserves. The leaf in ``dc:subject`` is written the same way, because
a program that rewrites it from its own tags must arrive at the same value.

Programs do not take the union of these properties: the first non-empty one wins. A property that
was empty therefore starts with all of the user's keywords, from whatever property.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from zsic_index.errors import InputError

TagPath = tuple[str, ...]
"""A tag, from its root to its leaf."""

DEFAULT_ROOT = "ai"
"""Default first part of automatic tags."""

MAX_TAG_LENGTH = 2_000
"""Largest number of characters of a tag, all parts together."""

_RESERVED_ROOTS = ("auto",)  # digiKam's own tagger empties it.

_UNFIT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that keywords cannot contain: controls, lone surrogates, line ends."""

_ESCAPES = str.maketrans({"/": "\N{DIVISION SLASH}", "|": "\N{DIVIDES}"})


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag that a photo is to have.

    Attributes:
        path: from the root of automatic tags to the label.
        label_id: the label's id in the store; None for an ancestor that is no label.
        probability: of the label; None for an ancestor.
    """

    path: TagPath
    label_id: int | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class KeywordProperty:
    """An XMP property that programs read keywords from.

    Attributes:
        name: its usual name, prefix included; also its key in records.
        uri: its namespace.
        container: kind of the RDF container that it is created with.
        separator: separator of the parts of a path; None where only the leaf is written.
        created: whether it is created where it is missing.
        written: whether tags are written to it.
    """

    name: str
    uri: str
    container: str
    separator: str | None
    created: bool = True
    written: bool = True

    @property
    def prefix(self) -> str:
        """Its usual prefix."""
        return self.name.partition(":")[0]

    @property
    def local(self) -> str:
        """Its name without the prefix."""
        return self.name.partition(":")[2]

    def value(self, path: TagPath) -> str:
        """Return the value that this property has for a tag."""
        parts = [part.translate(_ESCAPES) for part in path]
        return parts[-1] if self.separator is None else self.separator.join(parts)

    def path(self, value: str) -> TagPath:
        """Return the tag of a value; empty for a value without text.

        A ``|`` in ``dc:subject`` separates levels too, as it does in darktable.
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
"""All properties that keywords are read from, in the order in which programs prefer them."""

WRITTEN = tuple(kind for kind in PROPERTIES if kind.written)


def exact(value: str) -> str:
    """Return a value in NFC without outer space: spellings of the same value become equal."""
    return unicodedata.normalize("NFC", value.strip())


def folded(name: str) -> str:
    """Return a name as written to keywords, case-folded: the same names become equal."""
    return unicodedata.normalize("NFC", exact(name).translate(_ESCAPES).casefold())


def folded_path(path: TagPath) -> TagPath:
    """Return a tag with all parts folded: the same tags become equal."""
    return tuple(map(folded, path))


def check_tag(path: TagPath) -> TagPath:
    """Return a tag without space around its parts.

    Raises:
        InputError: for an empty path or part, a character that XML cannot contain or that would
            break a line, or a tag that is too long.
    """
    checked = tuple(part.strip() for part in path)
    text = "/".join(checked)[:80]
    if not checked or not all(checked):
        raise InputError(f"tag {text!r}: has an empty part; give a name for each level")
    if sum(map(len, checked)) > MAX_TAG_LENGTH:
        raise InputError(
            f"tag {text!r}...: is longer than {MAX_TAG_LENGTH} characters; shorten the label"
        )
    for character in "".join(checked):
        if unicodedata.category(character) in _UNFIT or character in "\ufffe\uffff":
            raise InputError(
                f"tag {text!r}: contains {character!r}, which keywords cannot; remove it from the "
                "label"
            )
    return checked


def check_root(root: str) -> str:
    """Return a root of automatic tags without space around it.

    Raises:
        InputError: when it is not a valid tag, or when another program empties it.
    """
    (checked,) = check_tag((root,))
    if folded(checked) in _RESERVED_ROOTS:
        raise InputError(
            f"root {root!r}: digiKam's own tagger empties it; use another, such as {DEFAULT_ROOT!r}"
        )
    return checked


def distinct(paths: Iterable[TagPath]) -> tuple[TagPath, ...]:
    """Return the first of paths that are equal but for case, in order."""
    by_folded: dict[TagPath, TagPath] = {}
    for path in paths:
        by_folded.setdefault(folded_path(path), path)
    return tuple(by_folded.values())


def union(
    values: Mapping[str, Collection[str]], embedded: Iterable[TagPath] = ()
) -> tuple[TagPath, ...]:
    """Return the distinct tags of a photo from every keyword property, in order.

    Args:
        values: values of the properties, by their name.
        embedded: tags from within the photo; they come last.
    """
    paths = [
        path
        for kind in PROPERTIES
        for value in values.get(kind.name, ())
        if (path := kind.path(value))
    ]
    return distinct([*paths, *embedded])


def starting_values(kind: KeywordProperty, tags: Iterable[TagPath]) -> tuple[str, ...]:
    """Return the values that a property starts with when it is still empty.

    ``dc:subject`` gets every leaf. The others get every path, except single names that are a level
    of a longer path: programs write these to ``dc:subject`` in addition to the path.

    Args:
        kind: the property.
        tags: the user's tags, from ``union``.
    """
    tags = list(tags)
    if kind.separator is not None:
        levels = {folded(part) for path in tags if len(path) > 1 for part in path}
        tags = [path for path in tags if len(path) > 1 or folded(path[0]) not in levels]
    return without_twins(kind, (kind.value(path) for path in tags))


def without_twins(
    kind: KeywordProperty, values: Iterable[str], present: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return values in order, without those whose tag is present already or comes earlier."""
    seen = {folded_path(kind.path(value)) for value in present}
    new = []
    for value in values:
        tag = folded_path(kind.path(value))
        if tag not in seen:
            seen.add(tag)
            new.append(value)
    return tuple(new)
