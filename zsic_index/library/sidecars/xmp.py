"""Read XMP: find keyword properties and the positions of their bytes.

A sidecar belongs to the program that wrote it. It is therefore never serialised again from a tree:
it is read for positions, and edits are made to its bytes. The reader is expat from the standard
library because it reports the byte offset of each event; libxml2, and so lxml, reports the line
only. A document type declaration is refused where it starts, so that no entity is ever declared,
expanded or fetched. Elements that tagging does not look at take no memory, however many there are.
"""

from __future__ import annotations

import re
from xml.parsers import expat

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars.packet import (
    KEYWORDS,
    LEDGER,
    RDF,
    Attribute,
    Container,
    Description,
    Element,
    Encoding,
    Item,
    Name,
    Packet,
    Property,
    is_relevant,
)

MAX_FILE_SIZE = 10 * 1024 * 1024
"""Largest sidecar that is read, in bytes."""

_ALIASES = {"http://ns.microsoft.com/photo/1.0": "http://ns.microsoft.com/photo/1.0/"}
"""Namespaces as exiftool writes them, and as exiv2 does."""

_META = "adobe:ns:meta/"

_ABOUT = ((RDF, "about"), ("", "about"))

_IDENTIFIERS = ((RDF, "ID"), (RDF, "nodeID"))

_CONTAINERS = ("Bag", "Seq", "Alt")

_SEPARATOR = "\x1f"  # Not a character of XML: no namespace can contain it.

_START_TAG = re.compile(rb"""<([^\s/>]+)((?:\s+[^\s=>]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(/?)>""")

_ATTRIBUTE = re.compile(rb"""\s+([^\s=>]+)\s*=\s*("[^"]*"|'[^']*')""")


def parse(content: bytes, source: str) -> Packet:
    """Parse a sidecar, or an XMP packet from within a photo.

    Args:
        content: the file's bytes.
        source: name of the file in messages.

    Raises:
        SidecarError: when it is too large, not XMP or damaged, when it has a document type
            declaration, or a keyword property in a form that cannot be edited without loss.
    """
    if len(content) > MAX_FILE_SIZE:
        raise SidecarError(
            f"{source}: is larger than the limit of {MAX_FILE_SIZE:,} bytes for a sidecar; "
            "it is left unchanged"
        )
    encoding = Encoding.of(content)
    try:
        data = encoding.to_utf8(content)
    except UnicodeDecodeError:
        raise SidecarError(
            f"{source}: is not {encoding.name.upper()} text; save it again in the program that "
            "wrote it"
        ) from None
    if not data.strip():
        raise SidecarError(f"{source}: is empty; remove it, or save it again")
    rdf, descriptions = _Reader(data, source).read()
    return Packet(source, data, encoding, rdf, tuple(descriptions))


_Node = Element | None

_Entry = tuple[str, _Node]
"""The role of an open element, and the element where edits may need it."""

_IGNORED: _Entry = ("ignored", None)


class _Reader:
    """One pass of expat over one packet.

    ``_stack`` contains the open elements. The role of an element depends on the role of its parent:
    there is one method for each role of a parent.
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
                f"({expat.ErrorString(error.code)}); it is left unchanged: save it again in the "
                "program that wrote it"
            ) from None
        if self._rdf is None:
            raise SidecarError(
                f"{self._source}: is XML but not XMP: it has no rdf:RDF; it is left unchanged"
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
            "has a document type declaration, which XMP never has; it is left unchanged"
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
        # An element within an item shares the item's node but ends before it: the item ends last.
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
            raise self._refusal("has a second rdf:RDF; XMP has one: save it again")
        self._rdf = Element(*self._start_tag())
        return "rdf", self._rdf

    def _in_rdf(self, _: _Node, name: Name, attributes: list[str]) -> _Entry:
        if name != (RDF, "Description"):
            return _IGNORED
        description = Description(*self._start_tag())
        self._descriptions.append(description)
        names = iter(attributes[::2])
        values = iter(attributes[1::2])
        for match in _ATTRIBUTE.finditer(self._data, description.start, description.inner):
            raw_name, quoted = match[1].decode(), match[2].decode()
            if raw_name == "xmlns" or raw_name.startswith("xmlns:"):
                if quoted[1:-1] == LEDGER:
                    description.declarations.append(Attribute(quoted[1:-1], *match.span()))
                continue
            # expat reports the others in the order in which they are written.
            attribute, value = _name(next(names)), next(values)
            if attribute in _ABOUT:
                description.about = quoted
            elif is_relevant(attribute):
                description.attributes.append((attribute, Attribute(value, *match.span())))
            elif attribute not in _IDENTIFIERS:
                description.others += 1
        return "description", description

    def _in_description(self, parent: _Node, name: Name, attributes: list[str]) -> _Entry:
        assert isinstance(parent, Description)
        if not is_relevant(name):
            parent.others += 1
            return _IGNORED
        element = Property(*self._start_tag(), name=name)
        parent.properties.append(element)
        if name in KEYWORDS and any(_name(attribute)[0] == RDF for attribute in attributes[::2]):
            raise self._unusual(name, "has RDF attributes")
        return "property", element

    def _in_property(self, parent: _Node, name: Name, attributes: list[str]) -> _Entry:
        assert isinstance(parent, Property)
        if name[0] == RDF and name[1] in _CONTAINERS and parent.container is None:
            parent.container = Container(*self._start_tag())
            return "container", parent.container
        if parent.name in KEYWORDS:
            raise self._unusual(parent.name, "contains something else than one Bag, Seq or Alt")
        return _IGNORED

    def _in_container(self, parent: _Node, name: Name, attributes: list[str]) -> _Entry:
        assert isinstance(parent, Container)
        if name != (RDF, "li"):
            raise self._refusal("has something else than rdf:li in a list; save it again")
        item = Item(*self._start_tag())
        parent.items.append(item)
        return "item", item

    def _in_item(self, parent: _Node, name: Name, attributes: list[str]) -> _Entry:
        # A value with qualifiers is in rdf:value.
        return "item" if name == (RDF, "value") else "qualified", parent

    def _unusual(self, name: Name, problem: str) -> SidecarError:
        return self._refusal(
            f"{KEYWORDS[name].name} {problem}; it is left unchanged: save it again in the program "
            "that wrote it"
        )

    def _start_tag(self) -> tuple[str, str | None, int, int, bool]:
        """Return the first fields of the Element whose start tag expat is reading."""
        start = self._parser.CurrentByteIndex
        match = _START_TAG.match(self._data, start)
        assert match, "expat has read this tag"
        prefixes = [prefix for prefix, uris in self._prefixes.items() if uris[-1:] == [RDF]]
        rdf_prefix = max((f"{prefix}:" if prefix else "" for prefix in prefixes), default=None)
        return match[1].decode(), rdf_prefix, start, match.end(), bool(match[3])


def _name(raw: str) -> Name:
    """Return a name from expat's form of it, ``uri local prefix``, without the prefix."""
    parts = raw.split(_SEPARATOR)
    return (_ALIASES.get(parts[0], parts[0]), parts[1]) if len(parts) > 1 else ("", raw)
