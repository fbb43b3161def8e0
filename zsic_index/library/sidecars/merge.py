"""Compute a sidecar's new bytes from its old ones and the tags of its photo.

The base of a sidecar is the file as the user has it, without our changes. While the file is byte
for byte as we wrote it, the record leads back to the base, and new tags are added to the base: the
result depends on the base and the tags alone, not on what was written in between. Once another
program has changed the file, its base is the present file without our values, and the file is
edited in place, so that tags which stay do not move. Undoing gives the same bytes in either case.

Our values are known from the record, or from the ledger in the file where the record was lost.
A tag of ours that is missing from a changed file was rejected by the user. A tag is missing when a
property no longer has it. A property that is gone altogether counts too, unless our ledger went
with it: then a program dropped everything that it did not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from xml.sax.saxutils import quoteattr

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars import edits, keyword_edits
from zsic_index.library.sidecars.edits import Edit
from zsic_index.library.sidecars.keywords import (
    WRITTEN,
    KeywordProperty,
    Tag,
    TagPath,
    check_tag,
    distinct,
    exact,
    folded_path,
    starting_values,
    union,
    without_twins,
)
from zsic_index.library.sidecars.ledger import Origin, ledger_fields, read_ledger
from zsic_index.library.sidecars.packet import Packet
from zsic_index.library.sidecars.record import SidecarRecord, fingerprint
from zsic_index.library.sidecars.xmp import parse

_NEW_SIDECAR = """\
<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='zsic-index'>
 <rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>{}
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end='w'?>
"""

_SIDECAR_FOR = """
  <rdf:Description rdf:about=''
    xmlns:photoshop='http://ns.adobe.com/photoshop/1.0/'
    photoshop:SidecarForExtension={}/>"""


@dataclass(frozen=True, slots=True)
class MergedSidecar:
    """New content of a sidecar, and the changes that lead to it.

    Attributes:
        content: the file's bytes; None for no file.
        record: record to keep for the next merge; None when nothing has to be kept.
        added: tags that the file has now and did not have before.
        removed: tags of ours that the file had before and has no longer, without rejected ones.
        rejected: tags of ours that the user has removed since the last merge.
    """

    content: bytes | None
    record: SidecarRecord | None
    added: tuple[TagPath, ...] = ()
    removed: tuple[TagPath, ...] = ()
    rejected: tuple[TagPath, ...] = ()


def merge(
    content: bytes | None,
    tags: Iterable[Tag],
    record: SidecarRecord | None,
    *,
    origin: Origin | None,
    embedded: Iterable[TagPath] = (),
    sidecar_for: str = "",
    source: str = "sidecar",
    packet: Packet | None = None,
) -> MergedSidecar:
    """Return a sidecar with these tags of ours and no others.

    Args:
        content: the file's bytes; None without a file.
        tags: all tags of ours that it is to have; an empty iterable undoes all our changes.
        record: record that the last merge returned.
        origin: provenance for the ledger; None notes none.
        embedded: the user's tags from within the photo.
        sidecar_for: the photo's suffix, noted in a new file; empty for none.
        source: name of the file in messages.
        packet: ``content`` parsed; None to parse it here if that is needed.

    Raises:
        SidecarError: when the file cannot be read, or cannot be edited without loss.
        InputError: for a tag that keywords cannot contain.
    """
    record = record or SidecarRecord()
    embedded = tuple(embedded)
    tags = _without(_checked(tags), record.rejected)
    if content is not None and record.is_of(content) and _is_same(tags, record.tags):
        return MergedSidecar(content, record)
    start = _start(content, record, packet, sidecar_for, source)
    packet = start.packet
    tags = _without(tags, start.rejected)
    paths = tuple(tag.path for tag in tags)
    report = {
        "added": _difference(paths, start.before),
        "removed": _difference(start.before, (*paths, *start.rejected)),
        "rejected": start.rejected,
    }
    rejected = distinct([*record.rejected, *start.rejected])

    to_base = _to_base(packet, start.ours, embedded)
    base = edits.apply(packet.data, to_base)
    made = start.ours.made and _after(packet, to_base, base).is_blank
    if not tags:
        left = SidecarRecord(rejected=rejected) if rejected else None
        return MergedSidecar(None if made else packet.encoding.from_utf8(base), left, **report)

    changes = [_plan(packet, kind, start.ours, paths, embedded) for kind in WRITTEN]
    to_new = _to_new(packet, changes, tags, origin, made)
    new = edits.apply(packet.data, to_new)
    _check(_after(packet, to_new, new), changes)
    written = packet.encoding.from_utf8(new)
    after = SidecarRecord(
        written=fingerprint(written),
        made=made,
        tags=paths,
        added={change.kind.name: change.ours for change in changes if change.ours},
        created=tuple(change.kind.name for change in changes if change.created),
        rejected=rejected,
        back=() if made else edits.between(packet.data, to_new, to_base),
    )
    return MergedSidecar(written, after, **report)


@dataclass(frozen=True, slots=True)
class _Start:
    """Starting point of the edits.

    Attributes:
        packet: the file, or its base.
        ours: our changes in it; none in a base.
        before: tags of ours that the file has.
        rejected: those of them that the user has removed.
    """

    packet: Packet
    ours: SidecarRecord
    before: tuple[TagPath, ...] = ()
    rejected: tuple[TagPath, ...] = ()


def _start(
    content: bytes | None,
    record: SidecarRecord,
    packet: Packet | None,
    sidecar_for: str,
    source: str,
) -> _Start:
    if content is None:
        return _Start(_new_packet(sidecar_for, source), SidecarRecord(made=True))
    if record.is_of(content):
        base = record.without_us(content)
        if base is None:
            new = _new_packet(sidecar_for, source)
            return _Start(new, SidecarRecord(made=True), record.tags)
        if packet is None or base != content:
            packet = parse(base, source)
        return _Start(packet, SidecarRecord(), record.tags)
    packet = packet or parse(content, source)
    ours = record if record.added or record.created else read_ledger(packet)
    return _Start(packet, ours, ours.tags, _rejected(packet, ours))


def _new_packet(sidecar_for: str, source: str) -> Packet:
    """Return a new sidecar without tags; it notes the photo's suffix unless that is empty."""
    return replace(_parse_new(sidecar_for), source=source)


@lru_cache(maxsize=64)
def _parse_new(sidecar_for: str) -> Packet:
    description = _SIDECAR_FOR.format(quoteattr(sidecar_for)) if sidecar_for else ""
    return parse(_NEW_SIDECAR.format(description).encode(), "new sidecar")


def _after(packet: Packet, changes: Sequence[Edit], data: bytes) -> Packet:
    """Return the packet that edits lead to, given its bytes; parsed only if there are edits."""
    return parse(data, packet.source) if changes else packet


@dataclass(frozen=True, slots=True)
class _PropertyChange:
    """Planned change of one property.

    Attributes:
        kind: the property.
        removed: values of ours to remove.
        kept: values that stay, in order.
        new: values to add, in order.
        ours: values of ours after the change.
        created: whether we created the property.
    """

    kind: KeywordProperty
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    new: tuple[str, ...]
    ours: tuple[str, ...]
    created: bool


def _plan(
    packet: Packet,
    kind: KeywordProperty,
    ours: SidecarRecord,
    paths: Sequence[TagPath],
    embedded: Sequence[TagPath],
) -> _PropertyChange:
    """Plan the change of one property that gives it the values of tags."""
    name = (kind.uri, kind.local)
    present = packet.values(name)
    values = [kind.value(path) for path in paths]
    written = ours.added.get(kind.name, ())
    removed = tuple(value for value in written if exact(value) not in set(map(exact, values)))
    kept = tuple(value for value in present if value not in set(map(exact, removed)))
    staying = tuple(v for v in written if v not in removed and exact(v) in kept)
    exists = any(packet.elements(name)) or any(packet.attributes(name))
    if not kept and not kind.created:
        return _PropertyChange(kind, removed, kept, (), staying, created=False)
    first = () if kept else starting_values(kind, union(_user_values(packet, ours), embedded))
    new = without_twins(kind, [*first, *values], kept)
    return _PropertyChange(
        kind,
        removed,
        kept,
        new,
        staying + new[len(first) :],
        created=kind.name in ours.created or not exists,
    )


def _user_values(packet: Packet, ours: SidecarRecord) -> dict[str, list[str]]:
    """Return the values of every keyword property that are not ours."""
    values = {}
    for name, present in packet.keywords().items():
        written = set(map(exact, ours.added.get(name, ())))
        values[name] = [value for value in present if value not in written]
    return values


def _to_base(packet: Packet, ours: SidecarRecord, embedded: Sequence[TagPath]) -> list[Edit]:
    """Return the edits that remove all that is ours.

    A property that we created is removed when it contains only values that it would start with
    again: they are in other properties too.
    """
    user_values = _user_values(packet, ours)
    elsewhere = union(
        {name: values for name, values in user_values.items() if name not in ours.created}, embedded
    )
    dropped = [
        kind.name
        for kind in WRITTEN
        if kind.name in ours.created
        and set(user_values.get(kind.name, ())) <= set(map(exact, starting_values(kind, elsewhere)))
    ]
    added = {name: set(map(exact, values)) for name, values in ours.added.items()}
    return keyword_edits.removals(packet, added, dropped=dropped)


def _to_new(
    packet: Packet,
    changes: Sequence[_PropertyChange],
    tags: Sequence[Tag],
    origin: Origin | None,
    made: bool,
) -> list[Edit]:
    """Return the edits that make the planned changes, with a new ledger."""
    if not any(change.removed or change.new for change in changes):
        return []
    removed = {change.kind.name: set(map(exact, change.removed)) for change in changes}
    new = {change.kind.name: change.new for change in changes}
    ledger = ledger_fields(
        {change.kind: change.ours for change in changes if change.ours},
        [change.kind for change in changes if change.created],
        tags,
        origin,
        made=made,
    )
    return keyword_edits.removals(packet, removed) + keyword_edits.additions(packet, new, ledger)


def _rejected(packet: Packet, ours: SidecarRecord) -> tuple[TagPath, ...]:
    """Return the tags of ours that the user has removed; see the module's description."""
    rejected = []
    values = {kind: packet.values((kind.uri, kind.local)) for kind in WRITTEN}
    for path in ours.tags:
        written = [
            kind
            for kind in WRITTEN
            if exact(kind.value(path)) in set(map(exact, ours.added.get(kind.name, ())))
        ]
        missing = [kind for kind in written if exact(kind.value(path)) not in values[kind]]
        if missing and (
            packet.has_ledger
            or len(missing) == len(written)
            or any(values[kind] for kind in missing)
        ):
            rejected.append(path)
    return tuple(rejected)


def _check(packet: Packet, changes: Sequence[_PropertyChange]) -> None:
    """Compare the new file, parsed, with the plan: only exactly that may be written."""
    for change in changes:
        kind = change.kind
        if sorted(packet.values((kind.uri, kind.local))) != sorted(
            map(exact, (*change.kept, *change.new))
        ):
            raise SidecarError(
                f"{packet.source}: {kind.name} cannot be edited without loss; it is left "
                "unchanged: please report it with the file"
            )


def _checked(tags: Iterable[Tag]) -> list[Tag]:
    """Return the distinct tags with checked paths."""
    by_folded: dict[TagPath, Tag] = {}
    for tag in tags:
        path = check_tag(tag.path)
        by_folded.setdefault(folded_path(path), replace(tag, path=path))
    return list(by_folded.values())


def _without(tags: Iterable[Tag], paths: Iterable[TagPath]) -> list[Tag]:
    left_out = set(map(folded_path, paths))
    return [tag for tag in tags if folded_path(tag.path) not in left_out]


def _is_same(tags: Iterable[Tag], paths: Iterable[TagPath]) -> bool:
    return {folded_path(tag.path) for tag in tags} == set(map(folded_path, paths))


def _difference(paths: Iterable[TagPath], others: Iterable[TagPath]) -> tuple[TagPath, ...]:
    left_out = set(map(folded_path, others))
    return tuple(path for path in paths if folded_path(path) not in left_out)
