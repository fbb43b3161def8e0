"""Reading XMP: what a sidecar's keyword properties hold, and at which bytes they stand.

A sidecar belongs to the program that wrote it. So it is never written anew from a tree: it is read
for positions, and edits are made to its bytes. The reader is expat, the standard library's own,
because it tells at which byte each event happened; libxml2, and lxml with it, tells only the line.
A document type declaration is refused where it starts, so that no entity is ever declared, let
alone expanded or fetched. Nothing is kept of elements that are none of our business, however many
there are.

All positions are in the UTF-8 form of the file without its byte-order mark (``Packet.data``), which
``Encoding`` turns into the file's own bytes and back without loss.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar
from xml.parsers import expat

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars.keywords import PROPERTIES, KeywordProperty, exact

MAX_FILE_SIZE = 10 * 1024 * 1024
"""The most bytes that are read of a sidecar."""

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

LEDGER = "urn:x-zsic-index:ledger/1.0/"
"""The namespace of what we note in a sidecar about our own tags."""

SIDECAR_FOR = ("http://ns.adobe.com/photoshop/1.0/", "SidecarForExtension")
"""The suffix of the photo that a sidecar is for, without a dot."""

DERIVED_FROM = ("http://ns.adobe.com/xap/1.0/mm/", "DerivedFrom")
"""darktable's name of the photo that a sidecar is for."""

Name = tuple[str, str]
"""A namespace and a local name."""

_ALIASES = {"http://ns.microsoft.com/photo/1.0": "http://ns.microsoft.com/photo/1.0/"}
"""exiftool's form of a namespace, and exiv2's."""

_META = "adobe:ns:meta/"

_ABOUT = ((RDF, "about"), ("", "about"))

_IDENTIFIERS = ((RDF, "ID"), (RDF, "nodeID"))

_CONTAINERS = ("Bag", "Seq", "Alt")

_KEYWORDS: dict[Name, KeywordProperty] = {(kind.uri, kind.local): kind for kind in PROPERTIES}

_SEPARATOR = "\x1f"  # Not a character of XML: no namespace can hold it.

_START_TAG = re.compile(rb"""<([^\s/>]+)((?:\s+[^\s=>]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(/?)>""")

_ATTRIBUTE = re.compile(rb"""\s+([^\s=>]+)\s*=\s*("[^"]*"|'[^']*')""")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file's bytes become text.

    Attributes:
        name: Python's name of the codec.
        mark: the byte-order mark, or nothing.
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
        """Return the encoding that a file starts in: UTF-8 unless it shows another."""
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
    """One attribute.

    Attributes:
        value: with references resolved.
        start: the first byte of the space before it.
        end: behind its closing quote.
    """

    value: str
    start: int
    end: int


@dataclass(slots=True)
class Element:
    """An element that edits may need: the bytes of its start tag, its content, its end tag.

    Attributes:
        raw_name: with its prefix, as it stands.
        rdf_prefix: a prefix of RDF that is in force in it, colon included; empty where RDF is the
            default namespace; None where it has no name at all.
        start: the first byte of its start tag.
        inner: the first byte behind its start tag.
        close: the first byte of its end tag; ``inner`` for a self-closing element.
        end: behind its end tag.
        self_closing: whether it is written as one tag.
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
    """One ``rdf:li``."""

    text: list[str] = field(default_factory=list)

    @property
    def value(self) -> str:
        """The text in it."""
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
        container: what holds its items; None when its value is plain text.
        text: its plain text.
    """

    name: Name = ("", "")
    container: Container | None = None
    text: list[str] = field(default_factory=list)

    @property
    def values(self) -> list[str]:
        """Its values that are not empty."""
        if self.container is not None:
            return [item.value for item in self.container.items if item.value]
        value = exact("".join(self.text))
        return [value] if value else []


@dataclass(slots=True)
class Description(Element):
    """An ``rdf:Description`` with what we read of it.

    Attributes:
        about: the value of ``rdf:about`` as it stands, quotes included; None without one.
        properties: those in element form that we look at.
        attributes: those in attribute form that we look at, by their name.
        declarations: attributes that give our ledger's namespace a prefix.
        others: how many properties it has beside these.
    """

    about: str | None = None
    properties: list[Property] = field(default_factory=list)
    attributes: list[tuple[Name, Attribute]] = field(default_factory=list)
    declarations: list[Attribute] = field(default_factory=list)
    others: int = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """What was read of a sidecar.

    Attributes:
        source: what to call it in messages.
        data: the file in UTF-8 without its byte-order mark.
        encoding: how to get back to the file's bytes.
        rdf: the element that holds all descriptions.
        descriptions: in order.
    """

    source: str
    data: bytes
    encoding: Encoding
    rdf: Element
    descriptions: tuple[Description, ...]

    def elements(self, name: Name) -> Iterator[Property]:
        """Yield the properties of a name in element form, in order."""
        for description in self.descriptions:
            yield from (found for found in description.properties if found.name == name)

    def attributes(self, name: Name) -> Iterator[Attribute]:
        """Yield the properties of a name in attribute form, in order."""
        for description in self.descriptions:
            yield from (found for other, found in description.attributes if other == name)

    def values(self, name: Name) -> list[str]:
        """Return the values of a property in whatever form, those that are empty left out."""
        plain = (exact(found.value) for found in self.attributes(name))
        return [value for value in plain if value] + [
            value for found in self.elements(name) for value in found.values
        ]

    @property
    def has_ledger(self) -> bool:
        """Whether anything of our ledger is in it."""
        return any(name[0] == LEDGER for name in self._names())

    @property
    def is_blank(self) -> bool:
        """Whether it has no property but the suffix of its photo."""
        return all(name == SIDECAR_FOR for name in self._names()) and not any(
            description.others for description in self.descriptions
        )

    def keywords(self) -> dict[str, list[str]]:
        """Return the values of every keyword property that has one, by its usual name."""
        found = {kind.name: self.values(name) for name, kind in _KEYWORDS.items()}
        return {name: values for name, values in found.items() if values}

    def _names(self) -> Iterator[Name]:
        for description in self.descriptions:
            yield from (found.name for found in description.properties)
            yield from (name for name, _ in description.attributes)

    def plain(self, name: Name) -> str | None:
        """Return the one value of a property, or None."""
        return next(iter(self.values(name)), None)


def parse(content: bytes, source: str) -> Packet:
    """Read a sidecar, or an XMP packet from within a photo.

    Args:
        content: the file's bytes.
        source: what to call it in messages.

    Raises:
        SidecarError: when it is too large, not XMP, damaged, has a document type declaration, or a
            keyword property in a form that could not be edited without loss.
    """
    if len(content) > MAX_FILE_SIZE:
        raise SidecarError(
            f"{source}: is larger than the limit of {MAX_FILE_SIZE:,} bytes for a sidecar; "
            "it is left as it is"
        )
    encoding = Encoding.of(content)
    try:
        data = encoding.to_utf8(content)
    except UnicodeDecodeError:
        raise SidecarError(
            f"{source}: is not {encoding.name.upper()} text; save it anew in the program that "
            "wrote it"
        ) from None
    if not data.strip():
        raise SidecarError(f"{source}: is empty; remove it, or save it anew")
    rdf, descriptions = _Reader(data, source).read()
    return Packet(source, data, encoding, rdf, tuple(descriptions))


_Node = Element | None

_Entry = tuple[str, _Node]
"""What an open element is to us, and what is kept of it."""

_IGNORED: _Entry = ("ignored", None)


class _Reader:
    """One pass of expat over one packet.

    ``_stack`` has the open elements. What an element is depends on what its parent is: there is one
    method for each kind of parent.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self._data = data
        self._source = source
        self._stack: list[_Entry] = [("document", None)]
        self._prefixes: dict[str, list[str]] = {}
        self._rdf: Element | None = None
        self._descriptions: list[Description] = []
        self._within = {
            "document": self._in_document,
            "meta": self._in_meta,
            "rdf": self._in_rdf,
            "description": self._in_description,
            "property": self._in_property,
            "container": self._in_container,
            "item": self._in_item,
            "qualified": self._in_item,
        }

    def read(self) -> tuple[Element, list[Description]]:
        # The encoding is given: a declared one was that of the file before it became UTF-8.
        parser = expat.ParserCreate("utf-8", _SEPARATOR)
        parser.namespace_prefixes = True
        parser.ordered_attributes = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartNamespaceDeclHandler = self._declare
        parser.EndNamespaceDeclHandler = self._forget
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        self._parser = parser
        try:
            parser.Parse(self._data, True)
        except expat.ExpatError as error:
            raise SidecarError(
                f"{self._source}: line {error.lineno}: broken XML "
                f"({expat.ErrorString(error.code)}); it is left as it is: save it anew in the "
                "program that wrote it"
            ) from None
        if self._rdf is None:
            raise SidecarError(
                f"{self._source}: is XML but not XMP: it has no rdf:RDF; it is left as it is"
            )
        return self._rdf, self._descriptions

    def _refusal(self, problem: str) -> SidecarError:
        return SidecarError(f"{self._source}: line {self._parser.CurrentLineNumber}: {problem}")

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding and not re.match(r"utf-?(8|16|32)|us-ascii|ucs-?[24]", encoding, re.IGNORECASE):
            raise self._refusal(
                f"declares {encoding!r}; XMP is UTF-8, UTF-16 or UTF-32: convert it"
            )

    def _doctype(self, *_: object) -> None:
        raise self._refusal(
            "has a document type declaration, which XMP never has; it is left as it is"
        )

    def _declare(self, prefix: str | None, uri: str | None) -> None:
        self._prefixes.setdefault(prefix or "", []).append(uri or "")

    def _forget(self, prefix: str | None) -> None:
        self._prefixes[prefix or ""].pop()

    def _start(self, raw: str, attributes: list[str]) -> None:
        role, parent = self._stack[-1]
        open_child = self._within.get(role)
        self._stack.append(open_child(parent, _name(raw), attributes) if open_child else _IGNORED)

    def _end(self, raw: str) -> None:
        _, node = self._stack.pop()
        if node is None:
            return
        if node.self_closing:
            node.close = node.end = node.inner
            return
        # What stands within an item shares its node but ends before it: the item has the last word.
        node.close = self._parser.CurrentByteIndex
        node.end = self._data.index(b">", node.close) + 1

    def _characters(self, text: str) -> None:
        role, node = self._stack[-1]
        if role in ("property", "item") and isinstance(node, Property | Item):
            node.text.append(text)

    def _in_document(self, _: _Node, name: Name, attributes: list[str]) -> _Entry:
        if name[0] == _META:
            return "meta", None
        return self._in_meta(None, name, attributes)

    def _in_meta(self, _: _Node, name: Name, attributes: list[str]) -> _Entry:
        if name != (RDF, "RDF"):
            return _IGNORED
        if self._rdf is not None:
            raise self._refusal("has a second rdf:RDF; XMP has one: save it anew")
        self._rdf = Element(*self._start_tag())
        return "rdf", self._rdf

    def _in_rdf(self, _: _Node, name: Name, attributes: list[str]) -> _Entry:
        if name != (RDF, "Description"):
            return _IGNORED
        description = Description(*self._start_tag())
        self._descriptions.append(description)
        names = iter(attributes[::2])
        values = iter(attributes[1::2])
        for found in _ATTRIBUTE.finditer(self._data, description.start, description.inner):
            raw_name, quoted = found[1].decode(), found[2].decode()
            if raw_name == "xmlns" or raw_name.startswith("xmlns:"):
                if quoted[1:-1] == LEDGER:
                    description.declarations.append(Attribute(quoted[1:-1], *found.span()))
                continue
            # expat gives the others in the order in which they stand.
            attribute, value = _name(next(names)), next(values)
            if attribute in _ABOUT:
                description.about = quoted
            elif _looked_at(attribute):
                description.attributes.append((attribute, Attribute(value, *found.span())))
            elif attribute not in _IDENTIFIERS:
                description.others += 1
        return "description", description

    def _in_description(self, parent: _Node, name: Name, attributes: list[str]) -> _Entry:
        assert isinstance(parent, Description)
        if not _looked_at(name):
            parent.others += 1
            return _IGNORED
        found = Property(*self._start_tag(), name=name)
        parent.properties.append(found)
        if name in _KEYWORDS and any(_name(attribute)[0] == RDF for attribute in attributes[::2]):
            raise self._unusual(name, "has RDF attributes")
        return "property", found

    def _in_property(self, parent: _Node, name: Name, attributes: list[str]) -> _Entry:
        assert isinstance(parent, Property)
        if name[0] == RDF and name[1] in _CONTAINERS and parent.container is None:
            parent.container = Container(*self._start_tag())
            return "container", parent.container
        if parent.name in _KEYWORDS:
            raise self._unusual(parent.name, "holds something else than one Bag, Seq or Alt")
        return _IGNORED

    def _in_container(self, parent: _Node, name: Name, attributes: list[str]) -> _Entry:
        assert isinstance(parent, Container)
        if name != (RDF, "li"):
            raise self._refusal("holds something else than rdf:li in a list; save it anew")
        item = Item(*self._start_tag())
        parent.items.append(item)
        return "item", item

    def _in_item(self, parent: _Node, name: Name, attributes: list[str]) -> _Entry:
        # A value with qualifiers stands in rdf:value.
        return "item" if name == (RDF, "value") else "qualified", parent

    def _unusual(self, name: Name, problem: str) -> SidecarError:
        return self._refusal(
            f"{_KEYWORDS[name].name} {problem}; it is left as it is: save it anew in the program "
            "that wrote it"
        )

    def _start_tag(self) -> tuple[str, str | None, int, int, bool]:
        """Return the first fields of the Element whose start tag is being read."""
        start = self._parser.CurrentByteIndex
        found = _START_TAG.match(self._data, start)
        assert found, "expat has read this tag"
        prefixes = [prefix for prefix, uris in self._prefixes.items() if uris[-1:] == [RDF]]
        rdf_prefix = max((f"{prefix}:" if prefix else "" for prefix in prefixes), default=None)
        return found[1].decode(), rdf_prefix, start, found.end(), bool(found[3])


def _name(raw: str) -> Name:
    """Return expat's form of a name, ``uri, local, prefix``, without the prefix."""
    parts = raw.split(_SEPARATOR)
    return (_ALIASES.get(parts[0], parts[0]), parts[1]) if len(parts) > 1 else ("", raw)


def _looked_at(name: Name) -> bool:
    return name in _KEYWORDS or name in (SIDECAR_FOR, DERIVED_FROM) or name[0] == LEDGER
