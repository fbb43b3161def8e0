"""Tags in sidecars: what would change, writing them, taking them back.

The caller keeps the record that each call returns, and hands it in at the next. Tags are given
whole each time: those that are to stay when others are undone are simply given again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars import atomic_files
from zsic_index.library.sidecars.atomic_files import ChangedError, Snapshot
from zsic_index.library.sidecars.keywords import TagPath, union
from zsic_index.library.sidecars.merge import Merged, Origin, Tag, merge
from zsic_index.library.sidecars.record import SidecarRecord
from zsic_index.library.sidecars.xmp import parse

_ATTEMPTS = 5
"""How often a sidecar is merged anew when other programs keep writing it."""


def preview(
    path: Path,
    tags: Iterable[Tag],
    record: SidecarRecord | None = None,
    *,
    origin: Origin | None = None,
    embedded: Iterable[TagPath] = (),
    sidecar_for: str = "",
) -> Merged:
    """Return what ``apply`` would do, and do nothing.

    Args and errors are those of ``apply``.
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
) -> Merged:
    """Give a sidecar these tags of ours and no others.

    Nothing is written when nothing changes, and when another program changes the file meanwhile it
    is read and merged anew.

    Args:
        path: the sidecar; made when it is missing and there are tags.
        tags: all that it is to have of us.
        record: what the last call for this sidecar returned; without it our ledger in the file says
            what is ours.
        origin: noted in the ledger.
        embedded: the user's tags from within the photo (``tags_within``): a property that is still
            empty starts with them, as programs do not look there once it is not.
        sidecar_for: the photo's suffix as ``sidecars.paths.find`` gave it.

    Raises:
        SidecarError: when the file is left as it is, and why.
        InputError: for a tag that keywords cannot hold.
    """
    tags, embedded = tuple(tags), tuple(embedded)

    def fresh() -> Prepared:
        return prepare(
            path, tags, record, origin=origin, embedded=embedded, sidecar_for=sidecar_for
        )

    return put(path, fresh(), fresh).merged


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sidecar as it was read, and as it is to be.

    Attributes:
        snapshot: what was read.
        merged: what it is to be.
    """

    snapshot: Snapshot
    merged: Merged

    @property
    def changes(self) -> bool:
        """Whether any byte of it changes."""
        return self.merged.content != self.snapshot.content

    def put(self) -> bool:
        """Write it; return False, with nothing done, when another program has changed it since.

        Raises:
            SidecarError: when it cannot be written.
        """
        try:
            atomic_files.replace(self.snapshot, self.merged.content)
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
) -> Prepared:
    """Read a sidecar and merge tags into it; nothing is written before ``put``.

    Args and errors are those of ``apply``.
    """
    snapshot = atomic_files.read(path)
    merged = merge(
        snapshot.content,
        tags,
        record,
        origin=origin,
        embedded=embedded,
        sidecar_for=sidecar_for,
        source=str(path),
    )
    return Prepared(snapshot, merged)


def put(path: Path, prepared: Prepared, again: Callable[[], Prepared]) -> Prepared:
    """Write a prepared sidecar; return what was written.

    Args:
        path: the sidecar.
        prepared: what it is to be.
        again: prepares it anew, when another program has changed it meanwhile.

    Raises:
        SidecarError: when it cannot be written, or programs keep changing it.
    """
    for _ in range(_ATTEMPTS):
        if not prepared.changes or prepared.put():
            return prepared
        prepared = again()
    raise SidecarError(
        f"{path}: was changed by another program {_ATTEMPTS} times in a row; it is left as that "
        "program has it: run again when it is done"
    )


def undo(
    path: Path, record: SidecarRecord | None = None, *, embedded: Iterable[TagPath] = ()
) -> Merged:
    """Take back all that is ours in a sidecar.

    A file that nobody has changed since becomes what it was, byte for byte; one that we made goes.
    From a changed one our values go and the rest stays as it is now.

    Args and errors are those of ``apply``.
    """
    return apply(path, (), record, embedded=embedded)


def tags_within(xmp: bytes | None, keywords: Iterable[str] = ()) -> tuple[TagPath, ...]:
    """Return the user's tags from within a photo.

    Args:
        xmp: the photo's own XMP packet.
        keywords: its IPTC keywords, which are single names.

    Raises:
        SidecarError: when the packet cannot be read.
    """
    values = parse(xmp, "embedded XMP").keywords() if xmp else {}
    names = (keyword.strip() for keyword in keywords)
    return union(values, [(name,) for name in names if name])
