"""Records of photo libraries: photos, tags, label counts, runs and sidecars."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

TagKey = tuple[int, tuple[str, ...]]
"""Identifies a tag of a photo: index id and path."""

VerdictName = Literal["accepted", "rejected", "unsure"]


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A photo as it was when a run last read it; see ``tables.Photo``.

    Attributes:
        decision: digest of everything that its tags of the given index were decided from; None
            when that index has not decided about it.
    """

    photo_id: int
    folder: str
    name: str
    size: int
    mtime_ns: int
    content_hash: bytes | None
    problem: str | None
    missing_since: float | None
    tags_digest: str
    decision: bytes | None = None

    @property
    def path(self) -> str:
        """Absolute path."""
        return os.path.join(self.folder, self.name)  # noqa: PTH118


@dataclass(frozen=True, slots=True)
class StoredTag:
    """A tag that an index gave to a photo.

    Attributes:
        index_id: the index.
        path: from the root of automatic tags down.
        label_id: its label; None for a node above a label.
        probability: of the label; None for a node above a label.
        run_id: the run that gave it; empty for a tag that is not stored yet.
    """

    index_id: int
    path: tuple[str, ...]
    label_id: int | None = None
    probability: float | None = None
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class PhotoOutcome:
    """Outcome of a run for one photo.

    Attributes:
        folder: its folder.
        name: its file name.
        size: bytes.
        mtime_ns: nanoseconds since 1970.
        content_hash: 32 bytes; None for a refused photo.
        problem: reason for which it was refused, if it was.
        tags: its tags of the run's index; empty for a refused photo.
        decision: digest of everything that the tags were decided from; None for a refused photo.
    """

    folder: str
    name: str
    size: int
    mtime_ns: int
    content_hash: bytes | None
    problem: str | None = None
    tags: Sequence[StoredTag] = ()
    decision: bytes | None = None


@dataclass(frozen=True, slots=True)
class RecordedPhoto:
    """Changes that recording the outcome of a photo made.

    Attributes:
        photo_id: its id.
        added: tags that it has now and did not have before.
        withdrawn: tags that it had before and has no longer.
        tags_digest: digest of all its tags, those of other indexes included.
    """

    photo_id: int
    added: tuple[StoredTag, ...]
    withdrawn: tuple[StoredTag, ...]
    tags_digest: str


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Numbers of photos that have a label, and of verdicts on it.

    Attributes:
        tagged: photos that have it now.
        accepted: contents that it was accepted for; copies of a photo count once.
        rejected: contents that it was rejected for.
        unsure: contents that the user was unsure about.
    """

    tagged: int = 0
    accepted: int = 0
    rejected: int = 0
    unsure: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A run of ``tag``; see ``tables.TagRun``. Times are in seconds since 1970."""

    run_id: str
    digest: str
    index_name: str
    model_id: str | None
    taxonomy: str
    settings: Mapping[str, Any]
    state: str = "running"
    counts: Mapping[str, int] = field(default_factory=dict)
    started_at: float = 0.0
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class SidecarRow:
    """A sidecar that tags were written to; see ``tables.SidecarFile``."""

    path: str
    photo_id: int
    sidecar_for: str
    tags_digest: str
    record: str | None
    written: str | None
    size: int | None
    mtime_ns: int | None
    intent: str | None = None

    def is_unchanged(self) -> bool:
        """Tell whether the file still has the size and time that it was written with."""
        try:
            status = os.stat(self.path)  # noqa: PTH116
        except OSError:
            # A sidecar that was removed again has no size: a missing file is what was left.
            return self.intent is None and self.size is None
        state = (self.size, self.mtime_ns)
        return self.intent is None and state == (status.st_size, status.st_mtime_ns)


def subtract_tags(tags: Iterable[StoredTag], others: Iterable[StoredTag]) -> tuple[StoredTag, ...]:
    """Return the tags whose paths are not among those of others."""
    paths = {tag.path for tag in others}
    return tuple(tag for tag in tags if tag.path not in paths)


def digest_tags(tags: Iterable[StoredTag]) -> str:
    """Return the sha256 of tags in hex, whatever their order; empty for no tags.

    Probabilities are left out: a change in one does not make a sidecar outdated.
    """
    paths = sorted((tag.index_id, tag.path) for tag in tags)
    return hashlib.sha256(json.dumps(paths).encode()).hexdigest() if paths else ""
