"""What is remembered of a sidecar that tags were written to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from zsic_index.errors import StoreError
from zsic_index.library.sidecars import edits
from zsic_index.library.sidecars.edits import Edit
from zsic_index.library.sidecars.keywords import TagPath
from zsic_index.library.sidecars.xmp import Encoding

Added = dict[str, tuple[str, ...]]
"""Values that we put into properties, by the property's usual name."""


@dataclass(frozen=True, slots=True)
class SidecarRecord:
    """What we did to one sidecar: enough to take it back, whatever became of the file since.

    Attributes:
        written: sha256 of the file as we left it, hexadecimal; empty when that is not known.
        made: whether the file was made by us, so that nothing is left of it without our tags.
        tags: the tags that it was to have.
        added: the values that we put in, by property. A value that was there before is not ours.
        created: the properties that were not there before us.
        rejected: tags of ours that the user took out; they are not put in again.
        back: the edits that lead from the file as we left it to what it is without us.
    """

    written: str = ""
    made: bool = False
    tags: tuple[TagPath, ...] = ()
    added: Added = field(default_factory=dict)
    created: tuple[str, ...] = ()
    rejected: tuple[TagPath, ...] = ()
    back: tuple[Edit, ...] = ()

    def is_of(self, content: bytes) -> bool:
        """Whether a file is exactly as we left it."""
        return self.written == fingerprint(content)

    def without_us(self, content: bytes) -> bytes | None:
        """Return a file that is as we left it as it is without us; None where we made it."""
        if self.made:
            return None
        encoding = Encoding.of(content)
        return encoding.from_utf8(edits.apply(encoding.to_utf8(content), self.back))

    def to_json(self) -> str:
        """Return one line of JSON for the store."""
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
            StoreError: when it is not what ``to_json`` gave.
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
    """Return the sha256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()
