"""Our ledger: the notes about our own tags in a sidecar, for when the store has lost its record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from zsic_index.library.sidecars.keyword_edits import LedgerFields
from zsic_index.library.sidecars.keywords import TAGS_LIST, WRITTEN, KeywordProperty, Tag
from zsic_index.library.sidecars.packet import LEDGER, Packet
from zsic_index.library.sidecars.record import SidecarRecord


@dataclass(frozen=True, slots=True)
class Origin:
    """Provenance of tags.

    Attributes:
        run: id of the run that writes them.
        model: the checkpoint.
        taxonomy: the labels.
    """

    run: str
    model: str
    taxonomy: str


def ledger_fields(
    added: Mapping[KeywordProperty, Sequence[str]],
    created: Collection[KeywordProperty],
    tags: Iterable[Tag],
    origin: Origin | None,
    *,
    made: bool,
) -> LedgerFields:
    """Return the fields of the ledger; empty when nothing in the file is ours.

    They are flat values and lists, because exiv2 drops structures.

    Args:
        added: values of ours, by property; none of them empty.
        created: properties that we created.
        tags: tags of the photo.
        origin: provenance of the tags; None notes none.
        made: whether we created the file.
    """
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
        fields["zsicCreated"] = [kind.name for kind in created]
    fields["zsicLabels"] = [
        f"{'-' if tag.label_id is None else tag.label_id} "
        f"{'-' if tag.probability is None else format(tag.probability, '.6f')} "
        f"{TAGS_LIST.value(tag.path)}"
        for tag in tags
    ]
    return fields | {_field_name(kind): values for kind, values in added.items()}


def read_ledger(packet: Packet) -> SidecarRecord:
    """Return the record in a sidecar's ledger, without the edits that undo our changes."""

    def field(local: str) -> list[str]:
        return packet.values((LEDGER, local))

    labels = [text.split(" ", 2) for text in field("zsicLabels")]
    return SidecarRecord(
        made=bool(field("zsicMade")),
        tags=tuple(TAGS_LIST.path(parts[2]) for parts in labels if len(parts) == 3),
        added={
            kind.name: tuple(values) for kind in WRITTEN if (values := field(_field_name(kind)))
        },
        created=tuple(field("zsicCreated")),
    )


def _field_name(kind: KeywordProperty) -> str:
    """Return the local name of the field with a property's values.

    Some programs ignore namespaces: a second ``TagsList`` or ``Model`` would hide the first.
    """
    return f"zsic{kind.local[0].upper()}{kind.local[1:]}"
