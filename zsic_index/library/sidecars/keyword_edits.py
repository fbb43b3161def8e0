"""The edits to a sidecar's bytes that add and remove keywords, and our ledger.

What a sidecar has already is edited in place: an item is put behind the last one with the same
space before it, or taken out together with the space before it. What it has not, properties and
ledger, goes into one ``rdf:Description`` of our own behind the others, with its own namespace
declarations, so that no byte of theirs has to change and no prefix of theirs can be in the way.
Programs that write the file anew may merge it into theirs; what is removed is therefore looked for
everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from xml.sax.saxutils import escape

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars import edits
from zsic_index.library.sidecars.edits import Edit
from zsic_index.library.sidecars.keywords import WRITTEN, KeywordProperty, exact
from zsic_index.library.sidecars.xmp import LEDGER, RDF, Description, Element, Packet, Property

LedgerFields = Mapping[str, str | Sequence[str]]
"""What our ledger says, by local name: a value, or several."""

_LEDGER_PREFIX = "zsic"

_OWN_PREFIXES = {kind.prefix for kind in WRITTEN} | {_LEDGER_PREFIX}

_BY_NAME = {(kind.uri, kind.local): kind for kind in WRITTEN}

_SPACE = b" \t\r\n"

_LAST_LINE = re.compile(rb"\r?\n[ \t]*\Z")


def removals(
    packet: Packet,
    values: Mapping[str, Collection[str]],
    *,
    dropped: Collection[str] = (),
) -> list[Edit]:
    """Return the edits that take out values, whole properties and our ledger.

    A description that is left with nothing goes as a whole.

    Args:
        packet: the sidecar.
        values: by the name of their property; compared as ``keywords.exact`` has them.
        dropped: names of properties that go whatever they hold.
    """
    found = []
    for description in packet.descriptions:
        found += _removals_within(packet.data, description, values, dropped)
    return found


def additions(
    packet: Packet, values: Mapping[str, Sequence[str]], ledger: LedgerFields
) -> list[Edit]:
    """Return the edits that put in values and our ledger.

    Args:
        packet: the sidecar.
        values: by the name of their property; each is put behind those that are there.
        ledger: its fields; with none there is no ledger.

    Raises:
        SidecarError: when RDF has no name where one is needed.
    """
    found: list[Edit] = []
    missing: list[tuple[KeywordProperty, list[str]]] = []
    for kind in WRITTEN:
        new = list(values.get(kind.name, ()))
        if not new:
            continue
        name = (kind.uri, kind.local)
        elements = sorted(packet.elements(name), key=lambda element: not element.values)
        if elements:
            found += _into(packet, elements[0], kind, new)
            continue
        # An attribute holds one value: its place is taken by a list that starts with it.
        attributes = list(packet.attributes(name))
        found += [Edit(attribute.start, attribute.end) for attribute in attributes]
        held = [attribute.value for attribute in attributes if exact(attribute.value)]
        missing.append((kind, held + new))
    if missing or ledger:
        found.append(_block(packet, missing, ledger))
    return found


def _removals_within(
    data: bytes,
    description: Description,
    values: Mapping[str, Collection[str]],
    dropped: Collection[str],
) -> list[Edit]:
    found = [Edit(declared.start, declared.end) for declared in description.declarations]
    left = description.others
    for name, attribute in description.attributes:
        if name[0] == LEDGER:
            found.append(Edit(attribute.start, attribute.end))
        else:
            left += 1
    for held in description.properties:
        kind = _BY_NAME.get(held.name)
        if held.name[0] == LEDGER or (kind and kind.name in dropped):
            found.append(_whole(data, held))
            continue
        left += 1
        if kind:
            found += _items(data, held, values.get(kind.name, ()))
    if left or not found:
        return found
    start, end = description.inner, description.close
    within = [Edit(e.start - start, e.end - start) for e in found if e.start >= start]
    if edits.apply(data[start:end], within).strip():  # A comment, perhaps.
        return found
    return [_whole(data, description)]


def _items(data: bytes, held: Property, values: Collection[str]) -> list[Edit]:
    if held.container is None:
        ours = held.values and held.values[0] in values
        return [Edit(held.inner, held.close)] if ours else []
    return [_whole(data, item) for item in held.container.items if item.value in values]


def _whole(data: bytes, element: Element) -> Edit:
    return Edit(element.start - len(_space_before(data, element.start)), element.end)


def _space_before(data: bytes, position: int) -> bytes:
    start = position
    while start and data[start - 1] in _SPACE:
        start -= 1
    return data[start:position]


def _into(packet: Packet, held: Property, kind: KeywordProperty, new: list[str]) -> list[Edit]:
    """Return the edits that put values into a property in element form."""
    container = held.container
    if container is not None:
        prefix = container.raw_name.rpartition(":")[0]
        item = f"{prefix}:li" if prefix else "li"
        if container.items:
            last = container.items[-1]
            space = _space_before(packet.data, last.start)
            text = b"".join(space + _element(item, value) for value in new)
            return [Edit(last.end, last.end, text)]
        return [_fill(container, b"".join(_element(item, value) for value in new))]
    if held.rdf_prefix is None:
        raise SidecarError(
            f"{packet.source}: {kind.name} stands where RDF has no prefix; it is left as it is"
        )
    item, name = f"{held.rdf_prefix}li", f"{held.rdf_prefix}{kind.container}"
    items = b"".join(_element(item, value) for value in new)
    if not held.values:
        return [_fill(held, b"<%b>%b</%b>" % (name.encode(), items, name.encode()))]
    # Plain text, which may hold references and comments, becomes the first item as it stands.
    return [
        Edit(held.inner, held.inner, f"<{name}><{item}>".encode()),
        Edit(held.close, held.close, b"</%b>%b</%b>" % (item.encode(), items, name.encode())),
    ]


def _fill(element: Element, content: bytes) -> Edit:
    """Return the edit that puts content into an element that has none."""
    if element.self_closing:
        end_tag = f"</{element.raw_name}>".encode()
        return Edit(element.inner - 2, element.inner, b">" + content + end_tag)
    return Edit(element.inner, element.inner, content)


def _element(name: str, value: str) -> bytes:
    return f"<{name}>{escape(value)}</{name}>".encode()


def _block(
    packet: Packet, properties: list[tuple[KeywordProperty, list[str]]], ledger: LedgerFields
) -> Edit:
    """Return the edit that puts in a description of our own behind the last one."""
    rdf = packet.rdf.rdf_prefix
    declared = {kind.prefix: kind.uri for kind, _ in properties}
    if ledger:
        declared[_LEDGER_PREFIX] = LEDGER
    if not rdf or rdf[:-1] in _OWN_PREFIXES:
        rdf = "rdf:"
        declared["rdf"] = RDF
    about = next((d.about for d in packet.descriptions if d.about is not None), '""')
    namespaces = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in declared.items())

    margin, step = _margin(packet)
    lines = [f"{margin}<{rdf}Description {rdf}about={about}{namespaces}>"]
    inner = margin + step

    def put(name: str, container: str, values: Sequence[str]) -> None:
        lines.append(f"{inner}<{name}>{inner}{step}<{rdf}{container}>")
        lines.extend(f"{inner}{step * 2}<{rdf}li>{escape(value)}</{rdf}li>" for value in values)
        lines.append(f"{inner}{step}</{rdf}{container}>{inner}</{name}>")

    for kind, values in properties:
        put(kind.name, kind.container, values)
    for local, value in ledger.items():
        name = f"{_LEDGER_PREFIX}:{local}"
        if isinstance(value, str):
            lines.append(f"{inner}<{name}>{escape(value)}</{name}>")
        else:
            put(name, "Bag", value)
    lines.append(f"{margin}</{rdf}Description>")
    text = "".join(lines).encode()
    if packet.descriptions:
        place = packet.descriptions[-1].end
        return Edit(place, place, text)
    return _fill(packet.rdf, text)


def _margin(packet: Packet) -> tuple[str, str]:
    """Return the line break and space before a description, and a step of indentation.

    Both are empty for a file that has no line breaks there.
    """
    descriptions = packet.descriptions
    place = descriptions[-1].start if descriptions else packet.rdf.close
    found = _LAST_LINE.search(_space_before(packet.data, place))
    if not found:
        return "", ""
    return found[0].decode() + ("" if descriptions else " "), " "
