"""What photo libraries ask of the store. Every method is one transaction."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select, text, update

from zsic_index.store.database import Database
from zsic_index.store.statements import chunks, insert_missing, put
from zsic_index.store.tables import (
    LabelThreshold,
    Photo,
    PhotoDecision,
    PhotoTag,
    SidecarFile,
    TagRun,
    Verdict,
)

TagKey = tuple[int, tuple[str, ...]]
"""A photo's tag: its index and its path."""

VerdictName = Literal["accepted", "rejected", "unsure"]

_PAGE = 1_000
"""Photos that are read at a time."""


@dataclass(frozen=True, slots=True)
class KnownPhoto:
    """A photo as it was when it was last looked at; see ``tables.Photo``.

    Attributes:
        decision: what its tags of the index that was asked about were decided from, if they were.
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
        """The whole path."""
        return os.path.join(self.folder, self.name)  # noqa: PTH118


@dataclass(frozen=True, slots=True)
class StoredTag:
    """A tag of ours on a photo.

    Attributes:
        index_id: the index that gave it.
        path: from the root of automatic tags down.
        label_id: its label; None for a node above one.
        probability: of the label.
        run_id: the run that gave it; empty for one that is not stored yet.
    """

    index_id: int
    path: tuple[str, ...]
    label_id: int | None = None
    probability: float | None = None
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """What became of a photo in a run.

    Attributes:
        folder: its folder.
        name: its name.
        size: bytes.
        mtime_ns: nanoseconds since 1970.
        content_hash: 32 bytes; None where it was refused.
        problem: why it was refused.
        tags: of the run's index; empty for one that was refused.
        decision: what they were decided from; None where it was refused.
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
class Recorded:
    """A photo after it was recorded.

    Attributes:
        photo_id: its id.
        added: tags that it has now and had not before.
        withdrawn: tags that it had and has no longer.
        tags_digest: of all its tags, those of other indexes included.
    """

    photo_id: int
    added: tuple[StoredTag, ...]
    withdrawn: tuple[StoredTag, ...]
    tags_digest: str


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How often a label has been given, and what the user said of it.

    Attributes:
        tagged: photos that have it now.
        accepted: pictures that it was accepted for; copies of a photo count once.
        rejected: the same for rejected.
        unsure: the same for unsure.
    """

    tagged: int = 0
    accepted: int = 0
    rejected: int = 0
    unsure: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One run; see ``tables.TagRun``. Times are in seconds since 1970."""

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

    def is_as_left(self) -> bool:
        """Whether the file has not been written since, by its size and time."""
        try:
            found = os.stat(self.path)  # noqa: PTH116
        except OSError:
            # One that we made and took away again is as it was left when it is not there.
            return self.intent is None and self.size is None
        state = (self.size, self.mtime_ns)
        return self.intent is None and state == (found.st_size, found.st_mtime_ns)


class PhotoStore:
    """Photos, tags, sidecars, runs and verdicts in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Photos

    def in_folder(self, folder: str, index_id: int) -> dict[str, KnownPhoto]:
        """Return the photos of a folder by name, and what an index last decided from."""
        return {one.name: one for one in self._known([_PHOTO.c.folder == folder], index_id)}

    def folders_under(self, root: str | None) -> list[str]:
        """Return the folders at and below a root that photos are known in which are not missing.

        Args:
            root: a folder; None for all there are.
        """
        below: ColumnElement[bool] = _PHOTO.c.missing_since.is_(None)
        if root is not None:
            below &= _under(root)
        with self._database.read() as connection:
            rows = connection.execute(select(_PHOTO.c.folder).distinct().where(below))
            return list(rows.scalars())

    def photos(
        self, *, index_id: int = 0, under: str | None = None, present: bool = True
    ) -> Iterator[KnownPhoto]:
        """Yield photos by id, a page at a time.

        Args:
            index_id: whose decisions are given with them.
            under: only those in and below a folder.
            present: only those that are not missing.
        """
        last = 0
        while True:
            wanted: list[ColumnElement[bool]] = [_PHOTO.c.id > last]
            if under is not None:
                wanted.append(_under(under))
            if present:
                wanted.append(_PHOTO.c.missing_since.is_(None))
            page = self._known(wanted, index_id, limit=_PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1].photo_id

    def find(self, folder: str, name: str) -> KnownPhoto | None:
        """Return one photo, or None."""
        found = self._known([_PHOTO.c.folder == folder, _PHOTO.c.name == name], 0)
        return found[0] if found else None

    def by_id(self, photo_ids: Sequence[int]) -> dict[int, KnownPhoto]:
        """Return photos by id."""
        found: dict[int, KnownPhoto] = {}
        for chunk in chunks(photo_ids):
            found |= {one.photo_id: one for one in self._known([_PHOTO.c.id.in_(chunk)], 0)}
        return found

    def record(self, looked: Sequence[Looked], index_id: int, run_id: str) -> list[Recorded]:
        """Write down what became of photos, with the tags that they have of one index now.

        Tags that were there stay with the run that gave them. A refused photo keeps what it has.
        """
        if not looked:
            return []
        with self._database.write() as connection:
            ids = _put_photos(connection, looked)
            before = _tags(connection, list(ids.values()))
            gone: list[tuple[int, int, tuple[str, ...]]] = []
            put_tags: list[dict[str, Any]] = []
            decisions: list[dict[str, Any]] = []
            recorded: list[Recorded] = []
            for one in looked:
                photo_id = ids[one.folder, one.name]
                had = {tag.path: tag for tag in before[photo_id] if tag.index_id == index_id}
                has = {tag.path: tag for tag in one.tags}
                if one.problem is not None:
                    has = had
                elif one.decision is not None:
                    decisions.append(
                        {"photo_id": photo_id, "index_id": index_id, "digest": one.decision}
                    )
                added = without(has.values(), had.values())
                withdrawn = without(had.values(), has.values())
                gone += [(photo_id, index_id, tag.path) for tag in withdrawn]
                for path, tag in has.items():
                    there = had.get(path)
                    if there is None:
                        put_tags.append(_tag_row(photo_id, tag, run_id))
                    elif (there.label_id, there.probability) != (tag.label_id, tag.probability):
                        put_tags.append(_tag_row(photo_id, tag, there.run_id))
                others = [tag for tag in before[photo_id] if tag.index_id != index_id]
                digest = tags_digest([*others, *has.values()])
                recorded.append(Recorded(photo_id, added, withdrawn, digest))
            _delete_tags(connection, gone)
            put(connection, _TAG, put_tags)
            put(connection, _DECISION, decisions)
            _set_digests(connection, {one.photo_id: one.tags_digest for one in recorded})
        return recorded

    def mark(self, photo_ids: Sequence[int], *, missing_since: float | None) -> None:
        """Note that photos are missing since then, or (None) that they are there again."""
        with self._database.write() as connection:
            for chunk in chunks(photo_ids):
                connection.execute(
                    update(_PHOTO).where(_PHOTO.c.id.in_(chunk)).values(missing_since=missing_since)
                )

    # Tags

    def tags(self, photo_ids: Sequence[int]) -> dict[int, list[StoredTag]]:
        """Return the tags of photos, most probable first; an empty list for a photo without."""
        with self._database.read() as connection:
            return _tags(connection, photo_ids)

    def given_by(
        self,
        *,
        run_id: str | None = None,
        paths: Sequence[tuple[str, ...]] | None = None,
        model_id: str | None = None,
        name: str | None = None,
    ) -> dict[int, list[TagKey]]:
        """Return tags by photo: those of a run, a model or an index, or of some paths.

        Args:
            run_id: a run that gave them, or that was the first to write them to a sidecar.
            paths: what they are.
            model_id: the checkpoint of the run that gave them.
            name: the index of the run that gave them.
        """
        wanted = select(_TAG.c.photo_id, _TAG.c.index_id, _TAG.c.path).join(
            _RUN, _RUN.c.id == _TAG.c.run_id
        )
        if run_id is not None:
            wanted = wanted.where(or_(_TAG.c.run_id == run_id, _TAG.c.written_by == run_id))
        if paths is not None:
            wanted = wanted.where(_TAG.c.path.in_([_path_text(path) for path in paths]))
        if model_id is not None:
            wanted = wanted.where(_RUN.c.model_id == model_id)
        if name is not None:
            wanted = wanted.where(_RUN.c.index_name == name)
        found: dict[int, list[TagKey]] = defaultdict(list)
        with self._database.read() as connection:
            for row in connection.execute(wanted.order_by(_TAG.c.photo_id)):
                found[row.photo_id].append((row.index_id, _path(row.path)))
        return found

    def take_back(self, keys: Mapping[int, Sequence[TagKey]]) -> None:
        """Delete tags of photos; what was decided about these photos is forgotten."""
        with self._database.write() as connection:
            _delete_tags(
                connection,
                [(photo_id, *key) for photo_id, within in keys.items() for key in within],
            )
            _forget_decisions(connection, list(keys))
            _renew_digests(connection, list(keys))

    def note_written(self, photo_ids: Sequence[int], run_id: str) -> None:
        """Note that a run has written the tags of photos to sidecars, unless one did before."""
        with self._database.write() as connection:
            for chunk in chunks(photo_ids):
                connection.execute(
                    update(_TAG)
                    .where(_TAG.c.photo_id.in_(chunk), _TAG.c.written_by.is_(None))
                    .values(written_by=run_id)
                )

    def paths_of_label(self, label: str) -> list[tuple[str, ...]]:
        """Return the tags whose leaf, or whole path with ``/``, is this, in any case."""
        with self._database.read() as connection:
            paths = connection.execute(select(_TAG.c.path).distinct()).scalars()
            found = [_path(path) for path in paths]
        folded = label.casefold()
        return [
            path for path in found if folded in (path[-1].casefold(), "/".join(path).casefold())
        ]

    # Verdicts

    def verdicts(self, content_hashes: Iterable[bytes]) -> dict[bytes, dict[int, VerdictName]]:
        """Return what the user said, by content and label."""
        found: dict[bytes, dict[int, VerdictName]] = defaultdict(dict)
        with self._database.read() as connection:
            for chunk in chunks(list(dict.fromkeys(content_hashes))):
                rows = connection.execute(
                    select(_VERDICT).where(_VERDICT.c.content_hash.in_(chunk))
                )
                for row in rows:
                    found[row.content_hash][row.label_id] = row.verdict
        return found

    def verdicts_of(self, label_id: int) -> dict[bytes, VerdictName]:
        """Return what the user said of one label, by content."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_VERDICT.c.content_hash, _VERDICT.c.verdict).where(
                    _VERDICT.c.label_id == label_id
                )
            )
            return dict(rows.all())

    def label_counts(self, index_id: int, under: str | None = None) -> dict[int, LabelCounts]:
        """Return what labels have been given to and what was said of them, by label.

        Args:
            index_id: whose tags are counted; verdicts are counted whichever index they are of.
            under: only photos in and below this folder.
        """
        present = _PHOTO.c.missing_since.is_(None)
        among = present if under is None else present & _under(under)
        tagged = (
            select(_TAG.c.label_id, func.count())
            .join(_PHOTO, _PHOTO.c.id == _TAG.c.photo_id)
            .where(_TAG.c.index_id == index_id, _TAG.c.label_id.is_not(None), among)
            .group_by(_TAG.c.label_id)
        )
        said = (
            select(_VERDICT.c.label_id, _VERDICT.c.verdict, func.count())
            .where(_VERDICT.c.content_hash.in_(select(_PHOTO.c.content_hash).where(among)))
            .group_by(_VERDICT.c.label_id, _VERDICT.c.verdict)
        )
        found: dict[int, dict[str, int]] = defaultdict(dict)
        with self._database.read() as connection:
            for label_id, number in connection.execute(tagged):
                found[label_id]["tagged"] = number
            for label_id, verdict, number in connection.execute(said):
                found[label_id][verdict] = number
        return {label_id: LabelCounts(**numbers) for label_id, numbers in found.items()}

    def give_verdicts(
        self,
        verdicts: Iterable[tuple[bytes, int, VerdictName | None]],
        *,
        source: Literal["sidecar", "review"],
    ) -> None:
        """Write down what the user said of labels on pictures; None takes it back.

        Photos with that content are decided about again by the next run; a tag that is rejected
        goes at once.
        """
        given = {(content, label_id): said for content, label_id, said in verdicts}
        now = time.time()
        with self._database.write() as connection:
            put(
                connection,
                _VERDICT,
                [
                    {
                        "content_hash": content,
                        "label_id": label_id,
                        "verdict": said,
                        "source": source,
                        "at": now,
                    }
                    for (content, label_id), said in given.items()
                    if said is not None
                ],
            )
            for (content, label_id), said in given.items():
                if said is None:
                    connection.execute(
                        delete(_VERDICT).where(
                            _VERDICT.c.content_hash == content, _VERDICT.c.label_id == label_id
                        )
                    )
            photo_ids = _of_content(connection, [content for content, _ in given])
            _forget_decisions(connection, [one for ids in photo_ids.values() for one in ids])
            rejected = [
                (photo_id, label_id)
                for (content, label_id), said in given.items()
                if said == "rejected"
                for photo_id in photo_ids.get(content, ())
            ]
            if rejected:
                connection.execute(
                    text("DELETE FROM photo_tag WHERE photo_id = :photo AND label_id = :label"),
                    [{"photo": photo_id, "label": label_id} for photo_id, label_id in rejected],
                )
            _renew_digests(connection, sorted({photo_id for photo_id, _ in rejected}))

    def label_thresholds(self, index_id: int) -> dict[int, float]:
        """Return the thresholds that verdicts have led to, by label."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_THRESHOLD.c.label_id, _THRESHOLD.c.threshold)
                .where(_THRESHOLD.c.index_id == index_id)
                .order_by(_THRESHOLD.c.label_id)
            )
            return dict(rows.all())

    def set_label_threshold(self, index_id: int, label_id: int, threshold: float | None) -> None:
        """Give a label a threshold of its own; None takes it back."""
        with self._database.write() as connection:
            connection.execute(delete(_THRESHOLD).where(_THRESHOLD.c.label_id == label_id))
            if threshold is not None:
                row = {"label_id": label_id, "index_id": index_id, "threshold": threshold}
                put(connection, _THRESHOLD, [row])

    # Sidecars

    def sidecars(self, photo_ids: Sequence[int]) -> dict[int, list[SidecarRow]]:
        """Return the sidecars of photos."""
        found: dict[int, list[SidecarRow]] = defaultdict(list)
        with self._database.read() as connection:
            for chunk in chunks(photo_ids):
                rows = connection.execute(select(_SIDECAR).where(_SIDECAR.c.photo_id.in_(chunk)))
                for row in rows:
                    found[row.photo_id].append(SidecarRow(**row._mapping))
        return found

    def sidecar_written_as(self, fingerprint: str) -> SidecarRow | None:
        """Return what is known of a sidecar by the sha256 of its content: it was moved, perhaps."""
        with self._database.read() as connection:
            row = connection.execute(
                select(_SIDECAR).where(_SIDECAR.c.written == fingerprint).limit(1)
            ).one_or_none()
        return None if row is None else SidecarRow(**row._mapping)

    def put_sidecars(self, rows: Sequence[SidecarRow]) -> None:
        """Write down sidecars as they are now, or are about to be."""
        with self._database.write() as connection:
            put(connection, _SIDECAR, [_fields(row) for row in rows])

    def drop_sidecars(self, paths: Sequence[str]) -> None:
        """Forget sidecars that nothing of ours is in."""
        with self._database.write() as connection:
            for chunk in chunks(paths):
                connection.execute(delete(_SIDECAR).where(_SIDECAR.c.path.in_(chunk)))

    # Runs

    def start(self, run: Run) -> Run:
        """Begin a run, or take up the one that was asked the same and never finished."""
        with self._database.write() as connection:
            row = connection.execute(
                select(_RUN).where(_RUN.c.digest == run.digest, _RUN.c.state == "running")
            ).first()
            if row is not None:
                return _run(row)
            put(connection, _RUN, [_run_row(run)])
        return run

    def finish(self, run_id: str, state: str, counts: Mapping[str, int]) -> None:
        """Write down how a run ended."""
        with self._database.write() as connection:
            connection.execute(
                update(_RUN)
                .where(_RUN.c.id == run_id)
                .values(state=state, counts=json.dumps(counts), finished_at=time.time())
            )

    def runs(self) -> list[Run]:
        """Return every run, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(_RUN).order_by(_RUN.c.started_at, _RUN.c.id)).all()
        return [_run(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return how many photos there are, and in what state."""
        present = _PHOTO.c.missing_since.is_(None)
        tagged = select(_TAG.c.photo_id)
        wanted = {
            "photos": present,
            "tagged": present & _PHOTO.c.id.in_(tagged),
            "refused": present & _PHOTO.c.problem.is_not(None),
            "missing": _PHOTO.c.missing_since.is_not(None),
        }
        with self._database.read() as connection:
            found = {
                name: connection.execute(
                    select(func.count()).select_from(_PHOTO).where(condition)
                ).scalar_one()
                for name, condition in wanted.items()
            }
            for name, table in (("tags", _TAG), ("sidecars", _SIDECAR), ("verdicts", _VERDICT)):
                found[name] = connection.execute(
                    select(func.count()).select_from(table)
                ).scalar_one()
        return found

    def _known(
        self, wanted: Sequence[ColumnElement[bool]], index_id: int, limit: int | None = None
    ) -> list[KnownPhoto]:
        decided = (_DECISION.c.photo_id == _PHOTO.c.id) & (_DECISION.c.index_id == index_id)
        query = (
            select(*_KNOWN, _DECISION.c.digest)
            .outerjoin(_DECISION, decided)
            .where(*wanted)
            .order_by(_PHOTO.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [KnownPhoto(*tuple(row)) for row in connection.execute(query)]


def without(tags: Iterable[StoredTag], others: Iterable[StoredTag]) -> tuple[StoredTag, ...]:
    """Return tags, by their paths, that are not among others."""
    paths = {tag.path for tag in others}
    return tuple(tag for tag in tags if tag.path not in paths)


def tags_digest(tags: Iterable[StoredTag]) -> str:
    """Return what stands for a photo's tags; empty for none. Probabilities are no part of it."""
    paths = sorted((tag.index_id, tag.path) for tag in tags)
    return hashlib.sha256(json.dumps(paths).encode()).hexdigest() if paths else ""


_PHOTO: Table = Photo.__table__  # type: ignore[assignment]
_TAG: Table = PhotoTag.__table__  # type: ignore[assignment]
_RUN: Table = TagRun.__table__  # type: ignore[assignment]
_DECISION: Table = PhotoDecision.__table__  # type: ignore[assignment]
_SIDECAR: Table = SidecarFile.__table__  # type: ignore[assignment]
_VERDICT: Table = Verdict.__table__  # type: ignore[assignment]
_THRESHOLD: Table = LabelThreshold.__table__  # type: ignore[assignment]

_KNOWN = tuple(
    _PHOTO.c[name]
    for name in (
        "id", "folder", "name", "size", "mtime_ns", "content_hash", "problem", "missing_since",
        "tags_digest",
    )
)  # fmt: skip


def _under(root: str) -> ColumnElement[bool]:
    inside = os.path.join(root, "")  # noqa: PTH118
    return or_(_PHOTO.c.folder == root, _PHOTO.c.folder.startswith(inside, autoescape=True))


def _put_photos(connection: Connection, looked: Sequence[Looked]) -> dict[tuple[str, str], int]:
    """Write photos down as they are now; return their ids."""
    names = [(one.folder, one.name) for one in looked]
    ids = _photo_ids(connection, names)
    known: list[dict[str, Any]] = []
    fresh: list[dict[str, Any]] = []
    for one, name in zip(looked, names, strict=True):
        row = {
            "folder": one.folder,
            "name": one.name,
            "size": one.size,
            "mtime_ns": one.mtime_ns,
            "content_hash": one.content_hash,
            "problem": one.problem,
            "missing_since": None,
        }
        if name in ids:
            known.append(row | {"id": ids[name]})
        else:
            fresh.append(row)
    put(connection, _PHOTO, known)
    if not fresh:
        return ids
    insert_missing(connection, _PHOTO, fresh)
    return _photo_ids(connection, names)


def _photo_ids(
    connection: Connection, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    by_folder: dict[str, list[str]] = defaultdict(list)
    for folder, name in names:
        by_folder[folder].append(name)
    ids: dict[tuple[str, str], int] = {}
    for folder, within in by_folder.items():
        for chunk in chunks(within):
            rows = connection.execute(
                select(_PHOTO.c.name, _PHOTO.c.id).where(
                    _PHOTO.c.folder == folder, _PHOTO.c.name.in_(chunk)
                )
            )
            ids |= {(folder, name): photo_id for name, photo_id in rows}
    return ids


def _tags(connection: Connection, photo_ids: Sequence[int]) -> dict[int, list[StoredTag]]:
    found: dict[int, list[StoredTag]] = {photo_id: [] for photo_id in photo_ids}
    for chunk in chunks(photo_ids):
        rows = connection.execute(
            select(_TAG)
            .where(_TAG.c.photo_id.in_(chunk))
            .order_by(_TAG.c.probability.desc(), _TAG.c.path)
        )
        for row in rows:
            tag = StoredTag(
                row.index_id, _path(row.path), row.label_id, row.probability, row.run_id
            )
            found[row.photo_id].append(tag)
    return found


# The same few paths come again on every photo.
@lru_cache(maxsize=1 << 16)
def _path_text(path: tuple[str, ...]) -> str:
    return json.dumps(path, ensure_ascii=False)


@lru_cache(maxsize=1 << 16)
def _path(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _tag_row(photo_id: int, tag: StoredTag, run_id: str) -> dict[str, Any]:
    return {
        "photo_id": photo_id,
        "index_id": tag.index_id,
        "path": _path_text(tag.path),
        "label_id": tag.label_id,
        "probability": tag.probability,
        "run_id": run_id,
    }


def _delete_tags(connection: Connection, keys: Sequence[tuple[int, int, tuple[str, ...]]]) -> None:
    if keys:
        connection.execute(
            text(
                "DELETE FROM photo_tag "
                "WHERE photo_id = :photo AND index_id = :index AND path = :path"
            ),
            [
                {"photo": photo_id, "index": index_id, "path": _path_text(path)}
                for photo_id, index_id, path in keys
            ],
        )


def _forget_decisions(connection: Connection, photo_ids: Sequence[int]) -> None:
    for chunk in chunks(photo_ids):
        connection.execute(delete(_DECISION).where(_DECISION.c.photo_id.in_(chunk)))


def _renew_digests(connection: Connection, photo_ids: Sequence[int]) -> None:
    tags = _tags(connection, photo_ids)
    _set_digests(connection, {key: tags_digest(found) for key, found in tags.items()})


def _set_digests(connection: Connection, digests: Mapping[int, str]) -> None:
    if digests:
        connection.execute(
            text("UPDATE photo SET tags_digest = :digest WHERE id = :photo"),
            [{"photo": photo_id, "digest": digest} for photo_id, digest in digests.items()],
        )


def _of_content(connection: Connection, content_hashes: Sequence[bytes]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = defaultdict(list)
    for chunk in chunks(list(dict.fromkeys(content_hashes))):
        rows = connection.execute(
            select(_PHOTO.c.content_hash, _PHOTO.c.id).where(_PHOTO.c.content_hash.in_(chunk))
        )
        for content, photo_id in rows:
            found[content].append(photo_id)
    return found


def _fields(row: SidecarRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SidecarRow.__slots__}


def _run(row: Any) -> Run:
    return Run(
        row.id,
        row.digest,
        row.index_name,
        row.model_id,
        row.taxonomy,
        json.loads(row.settings),
        row.state,
        json.loads(row.counts),
        row.started_at,
        row.finished_at,
    )


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "id": run.run_id,
        "digest": run.digest,
        "index_name": run.index_name,
        "model_id": run.model_id,
        "taxonomy": run.taxonomy,
        "settings": json.dumps(run.settings, ensure_ascii=False),
        "state": run.state,
        "counts": json.dumps(run.counts),
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }
