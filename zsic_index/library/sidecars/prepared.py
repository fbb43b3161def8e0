"""Write tags to one sidecar: preview, apply, undo.

The caller keeps the record that each call returns, and passes it to the next. Each call takes the
whole set of tags: to undo some, give the others again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars import files
from zsic_index.library.sidecars.files import ChangedError, SidecarSnapshot
from zsic_index.library.sidecars.keywords import Tag, TagPath
from zsic_index.library.sidecars.ledger import Origin
from zsic_index.library.sidecars.merge import MergedSidecar, merge
from zsic_index.library.sidecars.reader import SidecarReader
from zsic_index.library.sidecars.record import SidecarRecord

_ATTEMPTS = 5
"""Number of merges tried while other programs keep changing a sidecar."""


def preview(
    path: Path,
    tags: Iterable[Tag],
    record: SidecarRecord | None = None,
    *,
    origin: Origin | None = None,
    embedded: Iterable[TagPath] = (),
    sidecar_for: str = "",
) -> MergedSidecar:
    """Return what ``apply`` would write, without writing it.

    Arguments and errors are those of ``apply``.
    """
    return prepare(
        path, tags, record, origin=origin, embedded=embedded, sidecar_for=sidecar_for
    ).merged


def apply(
    path: Path,
    tags: Iterable[Tag],
    record: SidecarRecord | None = None,
    *,
    origin: Origin | None = None,
    embedded: Iterable[TagPath] = (),
    sidecar_for: str = "",
) -> MergedSidecar:
    """Give a sidecar these tags of ours and no others.

    Nothing is written when nothing changes. When another program changes the file meanwhile, it is
    read and merged again.

    Args:
        path: the sidecar; created when it is missing and there are tags.
        tags: all tags of ours that it is to have.
        record: record from the last call for this sidecar; without it the ledger in the file says
            what is ours.
        origin: provenance, noted in the ledger.
        embedded: the user's tags from within the photo (``embedded_tags``): an empty property
            starts with them, because programs stop reading the photo's own once it is not empty.
        sidecar_for: the photo's suffix as ``paths.choose`` gave it.

    Raises:
        SidecarError: when the file is left unchanged, with the reason.
        InputError: for a tag that keywords cannot contain.
    """
    tags, embedded = tuple(tags), tuple(embedded)

    def prepare_again() -> PreparedSidecar:
        return prepare(
            path, tags, record, origin=origin, embedded=embedded, sidecar_for=sidecar_for
        )

    return put(path, prepare_again(), prepare_again).merged


@dataclass(frozen=True, slots=True)
class PreparedSidecar:
    """A sidecar as it was read, and its new content.

    Attributes:
        snapshot: the file as it was read.
        merged: its new content.
    """

    snapshot: SidecarSnapshot
    merged: MergedSidecar

    @property
    def changes(self) -> bool:
        """True if any byte of it changes."""
        return self.merged.content != self.snapshot.content

    def put(self) -> bool:
        """Write it; return False, without writing, when another program has changed the file.

        Raises:
            SidecarError: when it cannot be written.
        """
        try:
            files.replace(self.snapshot, self.merged.content)
        except ChangedError:
            return False
        return True


def prepare(
    path: Path,
    tags: Iterable[Tag],
    record: SidecarRecord | None = None,
    *,
    origin: Origin | None = None,
    embedded: Iterable[TagPath] = (),
    sidecar_for: str = "",
    reader: SidecarReader | None = None,
) -> PreparedSidecar:
    """Read a sidecar and merge tags into it, without writing it.

    Arguments and errors are those of ``apply``; ``reader`` may have read the sidecar already.
    """
    reader = reader or SidecarReader()
    snapshot = reader.read(path)
    merged = merge(
        snapshot.content,
        tags,
        record,
        origin=origin,
        embedded=embedded,
        sidecar_for=sidecar_for,
        source=str(path),
        packet=reader.find_packet(path),
    )
    return PreparedSidecar(snapshot, merged)


def put(
    path: Path, prepared: PreparedSidecar, prepare_again: Callable[[], PreparedSidecar]
) -> PreparedSidecar:
    """Write a prepared sidecar; return it as it was written.

    Args:
        path: the sidecar.
        prepared: its new content.
        prepare_again: called when another program has changed the file meanwhile.

    Raises:
        SidecarError: when it cannot be written, or programs keep changing it.
    """
    for _ in range(_ATTEMPTS):
        if not prepared.changes or prepared.put():
            return prepared
        prepared = prepare_again()
    raise SidecarError(
        f"{path}: was changed by another program {_ATTEMPTS} times in a row; it is left as that "
        "program wrote it: run again when it is done"
    )


def undo(
    path: Path, record: SidecarRecord | None = None, *, embedded: Iterable[TagPath] = ()
) -> MergedSidecar:
    """Undo all our changes to a sidecar.

    A file that nobody has changed since becomes what it was, byte for byte; one that we created is
    removed. From a changed file our values are removed, and the rest stays as it is now.

    Arguments and errors are those of ``apply``.
    """
    return apply(path, (), record, embedded=embedded)
