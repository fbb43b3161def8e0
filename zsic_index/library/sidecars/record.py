"""The record of a sidecar that tags were written to: all that is needed to undo it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from zsic_index.errors import StoreError
from zsic_index.library.sidecars import edits
from zsic_index.library.sidecars.edits import Edit
from zsic_index.library.sidecars.keywords import TagPath
from zsic_index.library.sidecars.packet import Encoding

Added = dict[str, tuple[str, ...]]
"""Values that we added to properties, by the property's usual name."""


@dataclass(frozen=True, slots=True)
class SidecarRecord:
    """Our changes to one sidecar: enough to undo them, whatever happened to the file since.

    Attributes:
        written: sha256 of the file as we wrote it, hexadecimal; empty when unknown.
        made: whether we created the file, so that it goes when our tags go.
        tags: tags that it was to have.
        added: values that we added, by property. A value that was there before is not ours.
        created: properties that we created.
        rejected: tags of ours that the user removed; they are not added again.
        back: edits that lead from the file as we wrote it to the file without our changes.
    """

    written: str = ""
    made: bool = False
    tags: tuple[TagPath, ...] = ()
    added: Added = field(default_factory=dict)
    created: tuple[str, ...] = ()
    rejected: tuple[TagPath, ...] = ()
    back: tuple[Edit, ...] = ()

    def is_of(self, content: bytes) -> bool:
        """Tell whether a file is exactly as we wrote it."""
        return self.written == fingerprint(content)

    def without_us(self, content: bytes) -> bytes | None:
        """Return an unchanged file without our changes; None for a file that we created."""
        if self.made:
            return None
        encoding = Encoding.of(content)
        return encoding.from_utf8(edits.apply(encoding.to_utf8(content), self.back))

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(
            {
                "written": self.written,
                "made": self.made,
                "tags": self.tags,
                "added": self.added,
                "created": self.created,
                "rejected": self.rejected,
                "back": [(edit.start, edit.end, edit.text.decode()) for edit in self.back],
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> SidecarRecord:
        """Undo ``to_json``.

        Raises:
            StoreError: when the text is not a record.
        """
        try:
            fields = json.loads(text)
            return cls(
                written=fields["written"],
                made=fields["made"],
                tags=tuple(map(tuple, fields["tags"])),
                added={name: tuple(values) for name, values in fields["added"].items()},
                created=tuple(fields["created"]),
                rejected=tuple(map(tuple, fields["rejected"])),
                back=tuple(Edit(start, end, new.encode()) for start, end, new in fields["back"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"record of a sidecar: not one of ours ({error!r}): {text[:60]!r}; "
                "leave it out, and the sidecar's own notes are used"
            ) from error


def fingerprint(content: bytes) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    return hashlib.sha256(content).hexdigest()
