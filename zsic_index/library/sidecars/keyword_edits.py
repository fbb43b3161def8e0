"""Edits to a sidecar's bytes that add and remove keywords and our ledger.

Properties that a sidecar already has are edited in place: a new item follows the last one, with the
same space before it; a removed item goes together with the space before it. Missing properties and
the ledger go into one ``rdf:Description`` of our own behind the others, with its own namespace
declarations, so that no foreign byte has to change and no foreign prefix can conflict. Programs
that rewrite the file may merge it into theirs; removal therefore looks in all descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from xml.sax.saxutils import escape

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars import edits
from zsic_index.library.sidecars.edits import Edit
from zsic_index.library.sidecars.keywords import WRITTEN, KeywordProperty, exact
from zsic_index.library.sidecars.packet import LEDGER, RDF, Description, Element, Packet, Property

LedgerFields = Mapping[str, str | Sequence[str]]
"""Fields of our ledger by local name: a value, or several."""

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
    """Return the edits that remove values, whole properties and our ledger.

    A description that would be left empty is removed as a whole.

    Args:
        packet: the sidecar.
        values: values to remove, by the name of their property, in the form of ``keywords.exact``.
        dropped: names of properties to remove whatever they contain.
    """
    return [
        edit
        for description in packet.descriptions
        for edit in _removals_within(packet.data, description, values, dropped)
    ]


def additions(
    packet: Packet, values: Mapping[str, Sequence[str]], ledger: LedgerFields
) -> list[Edit]:
    """Return the edits that add values and our ledger.

    Args:
        packet: the sidecar.
        values: values to add, by the name of their property; they follow the existing ones.
        ledger: fields of the ledger; empty for no ledger.

    Raises:
        SidecarError: when RDF has no prefix where one is needed.
    """
    added: list[Edit] = []
    missing: list[tuple[KeywordProperty, list[str]]] = []
    for kind in WRITTEN:
        new = list(values.get(kind.name, ()))
        if not new:
            continue
        name = (kind.uri, kind.local)
        elements = sorted(packet.elements(name), key=lambda element: not element.values)
        if elements:
            added += _add_to_property(packet, elements[0], kind, new)
            continue
        # An attribute has room for one value: a list that starts with that value replaces it.
        attributes = list(packet.attributes(name))
        added += [Edit(attribute.start, attribute.end) for attribute in attributes]
        present = [attribute.value for attribute in attributes if exact(attribute.value)]
        missing.append((kind, present + new))
    if missing or ledger:
        added.append(_add_description(packet, missing, ledger))
    return added


def _removals_within(
    data: bytes,
    description: Description,
    values: Mapping[str, Collection[str]],
    dropped: Collection[str],
) -> list[Edit]:
    removed = [Edit(declared.start, declared.end) for declared in description.declarations]
    left = description.others
    for name, attribute in description.attributes:
        if name[0] == LEDGER:
            removed.append(Edit(attribute.start, attribute.end))
        else:
            left += 1
    for element in description.properties:
        kind = _BY_NAME.get(element.name)
        if element.name[0] == LEDGER or (kind and kind.name in dropped):
            removed.append(_remove(data, element))
            continue
        left += 1
        if kind:
            removed += _remove_values(data, element, values.get(kind.name, ()))
    if left or not removed:
        return removed
    start, end = description.inner, description.close
    within = [Edit(e.start - start, e.end - start) for e in removed if e.start >= start]
    # A comment, for example, keeps the description.
    if edits.apply(data[start:end], within).strip():
        return removed
    return [_remove(data, description)]


def _remove_values(data: bytes, element: Property, values: Collection[str]) -> list[Edit]:
    if element.container is None:
        is_ours = element.values and element.values[0] in values
        return [Edit(element.inner, element.close)] if is_ours else []
    return [_remove(data, item) for item in element.container.items if item.value in values]


def _remove(data: bytes, element: Element) -> Edit:
    """Return the edit that removes an element with the space before it."""
    return Edit(element.start - len(_space_before(data, element.start)), element.end)


def _space_before(data: bytes, position: int) -> bytes:
    start = position
    while start and data[start - 1] in _SPACE:
        start -= 1
    return data[start:position]


def _add_to_property(
    packet: Packet, element: Property, kind: KeywordProperty, new: list[str]
) -> list[Edit]:
    """Return the edits that add values to a property in element form."""
    container = element.container
    if container is not None:
        prefix = container.raw_name.rpartition(":")[0]
        item = f"{prefix}:li" if prefix else "li"
        if container.items:
            last = container.items[-1]
            space = _space_before(packet.data, last.start)
            text = b"".join(space + _element(item, value) for value in new)
            return [Edit(last.end, last.end, text)]
        return [_fill(container, b"".join(_element(item, value) for value in new))]
    if element.rdf_prefix is None:
        raise SidecarError(
            f"{packet.source}: {kind.name} is where RDF has no prefix; it is left unchanged"
        )
    item, name = f"{element.rdf_prefix}li", f"{element.rdf_prefix}{kind.container}"
    items = b"".join(_element(item, value) for value in new)
    if not element.values:
        return [_fill(element, b"<%b>%b</%b>" % (name.encode(), items, name.encode()))]
    # Plain text, which may contain references and comments, becomes the first item unchanged.
    return [
        Edit(element.inner, element.inner, f"<{name}><{item}>".encode()),
        Edit(element.close, element.close, b"</%b>%b</%b>" % (item.encode(), items, name.encode())),
    ]


def _fill(element: Element, content: bytes) -> Edit:
    """Return the edit that puts content into an empty element."""
    if element.self_closing:
        end_tag = f"</{element.raw_name}>".encode()
        return Edit(element.inner - 2, element.inner, b">" + content + end_tag)
    return Edit(element.inner, element.inner, content)


def _element(name: str, value: str) -> bytes:
    return f"<{name}>{escape(value)}</{name}>".encode()


def _add_description(
    packet: Packet, properties: list[tuple[KeywordProperty, list[str]]], ledger: LedgerFields
) -> Edit:
    """Return the edit that adds a description of our own behind the last one."""
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
        end = packet.descriptions[-1].end
        return Edit(end, end, text)
    return _fill(packet.rdf, text)


def _margin(packet: Packet) -> tuple[str, str]:
    """Return the line break and space before a description, and a step of indentation.

    Both are empty for a file without line breaks there.
    """
    descriptions = packet.descriptions
    position = descriptions[-1].start if descriptions else packet.rdf.close
    match = _LAST_LINE.search(_space_before(packet.data, position))
    if not match:
        return "", ""
    return match[0].decode() + ("" if descriptions else " "), " "
