"""XMP packets as read: the properties that tagging looks at, and the bytes at which they stand.

All positions are in the UTF-8 form of the file without its byte-order mark (``Packet.data``), which
``Encoding`` converts to the file's own bytes and back without loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from zsic_index.library.sidecars.keywords import PROPERTIES, KeywordProperty, exact

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

LEDGER = "urn:x-zsic-index:ledger/1.0/"
"""Namespace of our ledger: the notes about our own tags in a sidecar."""

Name = tuple[str, str]
"""A namespace and a local name."""

SIDECAR_FOR: Name = ("http://ns.adobe.com/photoshop/1.0/", "SidecarForExtension")
"""Suffix of the photo that a sidecar belongs to, without a dot."""

DERIVED_FROM: Name = ("http://ns.adobe.com/xap/1.0/mm/", "DerivedFrom")
"""Name of the photo that a sidecar belongs to, as darktable writes it."""

KEYWORDS: dict[Name, KeywordProperty] = {(kind.uri, kind.local): kind for kind in PROPERTIES}


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text encoding of XMP files.

    Attributes:
        name: Python's name of the codec.
        mark: the byte-order mark; empty without one.
    """

    name: str
    mark: bytes = b""

    # Longer marks first: that of UTF-32 starts with that of UTF-16.
    _BY_START: ClassVar[tuple[tuple[bytes, str, bool], ...]] = (
        (b"\xff\xfe\0\0", "utf-32-le", True),
        (b"\0\0\xfe\xff", "utf-32-be", True),
        (b"<\0\0\0", "utf-32-le", False),
        (b"\0\0\0<", "utf-32-be", False),
        (b"\xff\xfe", "utf-16-le", True),
        (b"\xfe\xff", "utf-16-be", True),
        (b"<\0", "utf-16-le", False),
        (b"\0<", "utf-16-be", False),
        (b"\xef\xbb\xbf", "utf-8", True),
    )

    @classmethod
    def of(cls, content: bytes) -> Encoding:
        """Return the encoding that a file's first bytes show; UTF-8 where they show none."""
        for start, name, is_mark in cls._BY_START:
            if content.startswith(start):
                return cls(name, start if is_mark else b"")
        return cls("utf-8")

    def to_utf8(self, content: bytes) -> bytes:
        """Return a file's bytes in UTF-8 without its mark; raises UnicodeDecodeError."""
        return content[len(self.mark) :].decode(self.name).encode()

    def from_utf8(self, data: bytes) -> bytes:
        """Undo ``to_utf8``."""
        return self.mark + data.decode().encode(self.name)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of an element.

    Attributes:
        value: its value, with references resolved.
        start: position of the space before it.
        end: position behind its closing quote.
    """

    value: str
    start: int
    end: int


@dataclass(slots=True)
class Element:
    """An element that edits may need, as positions of its tags.

    Attributes:
        raw_name: its name as written, with the prefix.
        rdf_prefix: a prefix of RDF that is in force within it, colon included; empty where RDF is
            the default namespace; None where RDF has no prefix.
        start: position of its start tag.
        inner: position behind its start tag.
        self_closing: whether it is written as a single tag.
        close: position of its end tag; ``inner`` for a self-closing element.
        end: position behind its end tag.
    """

    raw_name: str
    rdf_prefix: str | None
    start: int
    inner: int
    self_closing: bool
    close: int = 0
    end: int = 0


@dataclass(slots=True)
class Item(Element):
    """One ``rdf:li``.

    Attributes:
        text: pieces of its text, in order.
    """

    text: list[str] = field(default_factory=list)

    @property
    def value(self) -> str:
        """Its text in exact form; see ``keywords.exact``."""
        return exact("".join(self.text))


@dataclass(slots=True)
class Container(Element):
    """An ``rdf:Bag``, ``rdf:Seq`` or ``rdf:Alt`` with its items."""

    items: list[Item] = field(default_factory=list)


@dataclass(slots=True)
class Property(Element):
    """A property in element form.

    Attributes:
        name: namespace and local name.
        container: the container of its items; None for a property with plain text.
        text: pieces of its plain text, in order.
    """

    name: Name = ("", "")
    container: Container | None = None
    text: list[str] = field(default_factory=list)

    @property
    def values(self) -> list[str]:
        """Its non-empty values, in exact form."""
        if self.container is not None:
            return [item.value for item in self.container.items if item.value]
        value = exact("".join(self.text))
        return [value] if value else []


@dataclass(slots=True)
class Description(Element):
    """An ``rdf:Description`` with the properties that tagging looks at.

    Attributes:
        about: the value of ``rdf:about`` as written, quotes included; None without one.
        properties: its properties in element form.
        attributes: its properties in attribute form, with their names.
        declarations: attributes that declare a prefix for our ledger's namespace.
        others: number of properties that tagging does not look at.
    """

    about: str | None = None
    properties: list[Property] = field(default_factory=list)
    attributes: list[tuple[Name, Attribute]] = field(default_factory=list)
    declarations: list[Attribute] = field(default_factory=list)
    others: int = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """A sidecar's XMP, or that within a photo.

    Attributes:
        source: name of the file in messages.
        data: the file in UTF-8 without its byte-order mark.
        encoding: encoding of the file.
        rdf: the element that contains all descriptions.
        descriptions: the descriptions, in order.
    """

    source: str
    data: bytes
    encoding: Encoding
    rdf: Element
    descriptions: tuple[Description, ...]

    def elements(self, name: Name) -> Iterator[Property]:
        """Yield the properties of a name in element form, in order."""
        for description in self.descriptions:
            yield from (element for element in description.properties if element.name == name)

    def attributes(self, name: Name) -> Iterator[Attribute]:
        """Yield the properties of a name in attribute form, in order."""
        for description in self.descriptions:
            yield from (attribute for other, attribute in description.attributes if other == name)

    def values(self, name: Name) -> list[str]:
        """Return the non-empty values of a property, in exact form; attributes come first."""
        plain = (exact(attribute.value) for attribute in self.attributes(name))
        return [value for value in plain if value] + [
            value for element in self.elements(name) for value in element.values
        ]

    def first_value(self, name: Name) -> str | None:
        """Return the first value of a property; None without one."""
        return next(iter(self.values(name)), None)

    def keywords(self) -> dict[str, list[str]]:
        """Return the values of every keyword property that has one, by its usual name."""
        by_name = {kind.name: self.values(name) for name, kind in KEYWORDS.items()}
        return {name: values for name, values in by_name.items() if values}

    @property
    def has_ledger(self) -> bool:
        """True if it contains any property of our ledger."""
        return any(name[0] == LEDGER for name in self._names())

    @property
    def is_blank(self) -> bool:
        """True if it has no property except the suffix of its photo."""
        return all(name == SIDECAR_FOR for name in self._names()) and not any(
            description.others for description in self.descriptions
        )

    def _names(self) -> Iterator[Name]:
        for description in self.descriptions:
            yield from (element.name for element in description.properties)
            yield from (name for name, _ in description.attributes)


def is_relevant(name: Name) -> bool:
    """Tell whether a property is one that tagging looks at."""
    return name in KEYWORDS or name in (SIDECAR_FOR, DERIVED_FROM) or name[0] == LEDGER
