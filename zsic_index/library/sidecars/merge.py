"""Which bytes a sidecar gets when its photo has certain tags: bytes in, bytes out.

The file as the user has it without us is called its base. While the file is byte for byte as we
left it, the record has the way back to the base, and new tags are put into the base: what comes out
depends on the base and the tags alone, and not on what was written in between. Once another program
has changed the file, its base is what it is now without the values that are ours, and the file is
edited in place, so that tags which stay do not move. Either way, undoing what was written gives the
bytes that undoing would have given before.

What is ours is known from the record, and where that has been lost from the ledger in the file.
A tag of ours that is missing from a changed file was rejected by the user. It is missing when a
property no longer has it. A property that is gone altogether counts as well, unless our ledger
went with it: then a program dropped whatever it did not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from xml.sax.saxutils import quoteattr

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars import edits, keyword_edits
from zsic_index.library.sidecars.edits import Edit
from zsic_index.library.sidecars.keyword_edits import LedgerFields
from zsic_index.library.sidecars.keywords import (
    TAGS_LIST,
    WRITTEN,
    KeywordProperty,
    TagPath,
    check_tag,
    distinct,
    exact,
    folded_path,
    starting_values,
    union,
    without_twins,
)
from zsic_index.library.sidecars.record import SidecarRecord, fingerprint
from zsic_index.library.sidecars.xmp import LEDGER, Packet, parse

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
class Tag:
    """One tag that a photo is to have.

    Attributes:
        path: from the root of automatic tags to the label.
        label_id: the label's id in the store; None for an ancestor that is no label.
        probability: of the label; None for an ancestor.
    """

    path: TagPath
    label_id: int | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where tags come from, for the ledger.

    Attributes:
        run: id of the run that writes them.
        model: the checkpoint.
        taxonomy: the labels.
    """

    run: str
    model: str
    taxonomy: str


@dataclass(frozen=True, slots=True)
class Merged:
    """A sidecar as it is to be.

    Attributes:
        content: the file's bytes; None when there is to be none.
        record: what to remember of it; None when there is nothing.
        added: tags that it has now and had not before.
        removed: tags of ours that it had and has no longer, those that the user rejected left out.
        rejected: tags of ours that are found to have been rejected by the user.
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
) -> Merged:
    """Return a sidecar with these tags of ours and no others.

    Args:
        content: the file's bytes; None when there is no file.
        tags: all that it is to have of us; none takes back all that is ours.
        record: what was remembered when tags were last written to it.
        origin: noted in the ledger; None notes nothing of it.
        embedded: the user's tags from within the photo.
        sidecar_for: the photo's suffix, noted in a file that is made; empty for none.
        source: what to call the file in messages.

    Raises:
        SidecarError: when the file cannot be read, or cannot be edited without loss.
        InputError: for a tag that keywords cannot hold.
    """
    record = record or SidecarRecord()
    embedded = tuple(embedded)
    wanted = _without(_checked(tags), record.rejected)
    if content is not None and record.is_of(content) and _same(wanted, record.tags):
        return Merged(content, record)
    start = _start(content, record, _new_sidecar(sidecar_for), source)
    wanted = _without(wanted, start.rejected)
    paths = tuple(tag.path for tag in wanted)
    report = {
        "added": _difference(paths, start.before),
        "removed": _difference(start.before, (*paths, *start.rejected)),
        "rejected": start.rejected,
    }
    rejected = distinct([*record.rejected, *start.rejected])

    packet = start.packet
    to_base = _to_base(packet, start.ours, embedded)
    base = edits.apply(packet.data, to_base)
    made = start.ours.made and parse(base, source).is_blank
    if not wanted:
        left = SidecarRecord(rejected=rejected) if rejected else None
        return Merged(None if made else packet.encoding.from_utf8(base), left, **report)

    changes = [_change(packet, kind, start.ours, paths, embedded) for kind in WRITTEN]
    to_new = _to_new(packet, changes, wanted, origin, made)
    new = edits.apply(packet.data, to_new)
    _check(new, changes, source)
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
    return Merged(written, after, **report)


@dataclass(frozen=True, slots=True)
class _Start:
    """What the edits start from.

    Attributes:
        packet: the file, or its base.
        ours: what of it is ours; nothing in a base.
        before: the tags of ours that the file has.
        rejected: those of them that the user took out.
    """

    packet: Packet
    ours: SidecarRecord
    before: tuple[TagPath, ...] = ()
    rejected: tuple[TagPath, ...] = ()


def _start(content: bytes | None, record: SidecarRecord, new: bytes, source: str) -> _Start:
    if content is None:
        return _Start(parse(new, source), SidecarRecord(made=True))
    if record.is_of(content):
        base = record.without_us(content)
        ours = SidecarRecord(made=base is None)
        return _Start(parse(new if base is None else base, source), ours, record.tags)
    packet = parse(content, source)
    ours = record if record.added or record.created else _from_ledger(packet)
    return _Start(packet, ours, ours.tags, _rejected(packet, ours))


def _new_sidecar(sidecar_for: str) -> bytes:
    noted = _SIDECAR_FOR.format(quoteattr(sidecar_for)) if sidecar_for else ""
    return _NEW_SIDECAR.format(noted).encode()


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of one property.

    Attributes:
        kind: which.
        removed: values of ours that go.
        kept: values that stay, in order.
        new: values that come, in order.
        ours: the values that are ours then.
        created: whether it is there because of us.
    """

    kind: KeywordProperty
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    new: tuple[str, ...]
    ours: tuple[str, ...]
    created: bool


def _change(
    packet: Packet,
    kind: KeywordProperty,
    ours: SidecarRecord,
    paths: Sequence[TagPath],
    embedded: Sequence[TagPath],
) -> _Change:
    name = (kind.uri, kind.local)
    present = packet.values(name)
    wanted = [kind.value(path) for path in paths]
    written = ours.added.get(kind.name, ())
    removed = tuple(value for value in written if exact(value) not in set(map(exact, wanted)))
    kept = tuple(value for value in present if value not in set(map(exact, removed)))
    staying = tuple(v for v in written if v not in removed and exact(v) in kept)
    there = any(packet.elements(name)) or any(packet.attributes(name))
    if not kept and not kind.created:
        return _Change(kind, removed, kept, (), staying, created=False)
    first = () if kept else starting_values(kind, union(_users(packet, ours), embedded))
    new = without_twins(kind, [*first, *wanted], kept)
    return _Change(
        kind,
        removed,
        kept,
        new,
        staying + new[len(first) :],
        created=kind.name in ours.created or not there,
    )


def _users(packet: Packet, ours: SidecarRecord) -> dict[str, list[str]]:
    """Return the values of every keyword property that are not ours."""
    found = {}
    for name, values in packet.keywords().items():
        written = set(map(exact, ours.added.get(name, ())))
        found[name] = [value for value in values if value not in written]
    return found


def _to_base(packet: Packet, ours: SidecarRecord, embedded: Sequence[TagPath]) -> list[Edit]:
    """Return the edits that take out all that is ours.

    A property that we created goes when it holds nothing that it would not start with again: what
    is in it then stands elsewhere too.
    """
    users = _users(packet, ours)
    elsewhere = union(
        {name: values for name, values in users.items() if name not in ours.created}, embedded
    )
    dropped = [
        kind.name
        for kind in WRITTEN
        if kind.name in ours.created
        and set(users.get(kind.name, ())) <= set(map(exact, starting_values(kind, elsewhere)))
    ]
    added = {name: set(map(exact, values)) for name, values in ours.added.items()}
    return keyword_edits.removals(packet, added, dropped=dropped)


def _to_new(
    packet: Packet,
    changes: Sequence[_Change],
    tags: Sequence[Tag],
    origin: Origin | None,
    made: bool,
) -> list[Edit]:
    if not any(change.removed or change.new for change in changes):
        return []
    gone = {change.kind.name: set(map(exact, change.removed)) for change in changes}
    values = {change.kind.name: change.new for change in changes}
    ledger = _ledger(changes, tags, origin, made)
    return keyword_edits.removals(packet, gone) + keyword_edits.additions(packet, values, ledger)


def _ledger(
    changes: Sequence[_Change], tags: Sequence[Tag], origin: Origin | None, made: bool
) -> LedgerFields:
    """Return what the file itself says of our tags: flat values and lists, for exiv2's sake."""
    added = {_noted(change.kind): change.ours for change in changes if change.ours}
    created = [change.kind.name for change in changes if change.created]
    if not added and not created:
        return {}
    fields: dict[str, str | Sequence[str]] = {}
    if origin is not None:
        fields |= {
            "zsicRun": origin.run,
            "zsicModel": origin.model,
            "zsicTaxonomy": origin.taxonomy,
        }
    if made:
        fields["zsicMade"] = "true"
    if created:
        fields["zsicCreated"] = created
    fields["zsicLabels"] = [
        f"{'-' if tag.label_id is None else tag.label_id} "
        f"{'-' if tag.probability is None else format(tag.probability, '.6f')} "
        f"{TAGS_LIST.value(tag.path)}"
        for tag in tags
    ]
    return fields | added


def _noted(kind: KeywordProperty) -> str:
    """Return the name under which the ledger has a property's values.

    Some programs look at names without their namespace: a second ``TagsList`` or ``Model`` would
    hide the first from them.
    """
    return f"zsic{kind.local[0].upper()}{kind.local[1:]}"


def _from_ledger(packet: Packet) -> SidecarRecord:
    """Return the record that the file itself has of our tags, without the way back to its base."""

    def field(local: str) -> list[str]:
        return packet.values((LEDGER, local))

    labels = [text.split(" ", 2) for text in field("zsicLabels")]
    return SidecarRecord(
        made=bool(field("zsicMade")),
        tags=tuple(TAGS_LIST.path(parts[2]) for parts in labels if len(parts) == 3),
        added={kind.name: tuple(found) for kind in WRITTEN if (found := field(_noted(kind)))},
        created=tuple(field("zsicCreated")),
    )


def _rejected(packet: Packet, ours: SidecarRecord) -> tuple[TagPath, ...]:
    """Return the tags of ours that the user took out; see above."""
    found = []
    values = {kind: packet.values((kind.uri, kind.local)) for kind in WRITTEN}
    for path in ours.tags:
        put = [
            kind
            for kind in WRITTEN
            if exact(kind.value(path)) in set(map(exact, ours.added.get(kind.name, ())))
        ]
        missing = [kind for kind in put if exact(kind.value(path)) not in values[kind]]
        if missing and (
            packet.has_ledger or len(missing) == len(put) or any(values[kind] for kind in missing)
        ):
            found.append(path)
    return tuple(found)


def _check(data: bytes, changes: Sequence[_Change], source: str) -> None:
    """Read what was made, so that nothing is written that says anything else than is meant."""
    packet = parse(data, source)
    for change in changes:
        kind = change.kind
        if sorted(packet.values((kind.uri, kind.local))) != sorted(
            map(exact, (*change.kept, *change.new))
        ):
            raise SidecarError(
                f"{source}: {kind.name} cannot be edited without loss; it is left as it is: "
                "please report it with the file"
            )


def _checked(tags: Iterable[Tag]) -> list[Tag]:
    """Return tags with checked paths, each once."""
    found: dict[TagPath, Tag] = {}
    for tag in tags:
        path = check_tag(tag.path)
        found.setdefault(folded_path(path), replace(tag, path=path))
    return list(found.values())


def _without(tags: Iterable[Tag], paths: Iterable[TagPath]) -> list[Tag]:
    left_out = set(map(folded_path, paths))
    return [tag for tag in tags if folded_path(tag.path) not in left_out]


def _same(tags: Iterable[Tag], paths: Iterable[TagPath]) -> bool:
    return {folded_path(tag.path) for tag in tags} == set(map(folded_path, paths))


def _difference(paths: Iterable[TagPath], others: Iterable[TagPath]) -> tuple[TagPath, ...]:
    left_out = set(map(folded_path, others))
    return tuple(path for path in paths if folded_path(path) not in left_out)
