"""Bringing sidecars in line with the tags in the store, so that a kill leaves nothing in between.

Before a sidecar is written, the store is told what it is about to become. After a kill the file
itself then says whether it was: its sha256 is the one that was meant, or it is not. Intents are
committed for many files at once, and so is what came of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zsic_index.errors import InputError, SidecarError
from zsic_index.library.sidecars import atomic_files
from zsic_index.library.sidecars.embedded import embedded_tags
from zsic_index.library.sidecars.keywords import folded_path
from zsic_index.library.sidecars.merge import Origin, Tag
from zsic_index.library.sidecars.paths import Folder, Style, find
from zsic_index.library.sidecars.prepared import Prepared, prepare, put
from zsic_index.library.sidecars.record import SidecarRecord, fingerprint
from zsic_index.store import Store
from zsic_index.store.photo_records import Run, SidecarRow, StoredTag, digest_tags


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a photo's sidecars are to have of us.

    Attributes:
        photo_id: the photo.
        content_hash: its content; None where it has none.
        photo: its path.
        companions: paths of the files that share its tags.
        names: the names in its folder; None to look only at sidecars that we wrote before.
        tags: all its tags.
    """

    photo_id: int
    content_hash: bytes | None
    photo: Path
    companions: tuple[Path, ...]
    names: Folder | None
    tags: tuple[StoredTag, ...]


@dataclass(slots=True)
class Written:
    """What came of writing.

    Attributes:
        written: sidecars that were made or changed.
        removed: sidecars of ours that went, because nothing is left in them.
        unchanged: sidecars that were right already.
        rejected: tags that the user took out of sidecars, which are remembered.
        failed: photos of which a sidecar is left as it is.
        problems: one line for each such sidecar.
        warnings: one line for each choice that the user should know of.
    """

    written: int = 0
    removed: int = 0
    unchanged: int = 0
    rejected: int = 0
    failed: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def fail(self, photo_id: int, error: Exception) -> None:
        """Note a sidecar that is left as it is."""
        self.failed.add(photo_id)
        self.problems.append(str(error))

    def add(self, other: Written) -> None:
        """Add what came of more."""
        self.written += other.written
        self.removed += other.removed
        self.unchanged += other.unchanged
        self.rejected += other.rejected
        self.failed |= other.failed
        self.problems += other.problems
        self.warnings += other.warnings


@dataclass(frozen=True, slots=True)
class _Job:
    """One sidecar of one photo; ``row`` is what is known of it."""

    wanted: Wanted
    path: Path
    sidecar_for: str
    beside: Path
    row: SidecarRow | None

    @property
    def record(self) -> SidecarRecord | None:
        text = None if self.row is None else self.row.record
        return None if text is None else SidecarRecord.from_json(text)


class SidecarWriter:
    """Writes sidecars of many photos."""

    def __init__(
        self,
        store: Store,
        runs: Mapping[str, Run],
        *,
        style: Style = "full",
        both: bool = False,
    ) -> None:
        """Prepare to write.

        Args:
            store: the store.
            runs: by id, for the notes in sidecars.
            style: what a sidecar is called when there is none yet; see ``sidecars.paths.find``.
            both: whether both are updated where there are two.
        """
        self._store = store
        self._runs = runs
        self._style: Style = style
        self._both = both

    def write(self, wanted: Sequence[Wanted]) -> Written:
        """Give the sidecars of photos the tags that the store has."""
        report = Written()
        jobs = self._jobs(wanted, report)
        prepared: list[tuple[_Job, Prepared]] = []
        for job in jobs:
            try:
                prepared.append((job, self._prepare(job)))
            except (SidecarError, InputError) as error:
                report.fail(job.wanted.photo_id, error)
        changing = [(job, found) for job, found in prepared if found.changes]
        self._store.sidecars.save([_intent(job, found) for job, found in changing])
        done: list[tuple[_Job, Prepared]] = []
        for job, found in prepared:
            try:
                done.append((job, self._put(job, found) if found.changes else found))
            except (SidecarError, InputError) as error:
                # The intent stays: the next run looks whether the file has become that.
                report.fail(job.wanted.photo_id, error)
                continue
            if not found.changes:
                report.unchanged += 1
            elif found.merged.content is None:
                report.removed += 1
            else:
                report.written += 1
        report.rejected += self._reject(done)
        self._settle(done)
        return report

    def _jobs(self, wanted: Sequence[Wanted], report: Written) -> list[_Job]:
        rows = self._store.sidecars.find([one.photo_id for one in wanted])
        jobs: list[_Job] = []
        for one in wanted:
            known = {row.path: self._recovered(row) for row in rows.get(one.photo_id, ())}
            if not one.tags and not known:
                continue
            if one.names is None:
                jobs += [
                    _Job(one, Path(path), row.sidecar_for, _photo_of(one, path), row)
                    for path, row in known.items()
                ]
                continue
            for member in (one.photo, *one.companions):
                try:
                    found = find(member, one.names, style=self._style, both=self._both)
                except SidecarError as error:
                    report.fail(one.photo_id, error)
                    continue
                if found.warning:
                    report.warnings.append(found.warning)
                jobs += [
                    _Job(one, file.path, file.sidecar_for, member, known.get(str(file.path)))
                    for file in found.files
                    if one.tags or str(file.path) in known or file.path.exists()
                ]
        return jobs

    def _prepare(self, job: _Job) -> Prepared:
        if job.row is None:
            job = replace(job, row=self._moved_here(job))
        tags = [Tag(tag.path, tag.label_id, tag.probability) for tag in job.wanted.tags]
        return prepare(
            job.path,
            tags,
            job.record,
            origin=self._origin(job.wanted.tags),
            embedded=embedded_tags(job.beside) if tags else (),
            sidecar_for=job.sidecar_for,
        )

    def _put(self, job: _Job, prepared: Prepared) -> Prepared:
        def again() -> Prepared:
            fresh = self._prepare(job)
            self._store.sidecars.save([_intent(job, fresh)])
            return fresh

        return put(job.path, prepared, again)

    def _recovered(self, row: SidecarRow) -> SidecarRow:
        """Return what is known of a sidecar; after a kill the file says what came of an intent."""
        if row.intent is None:
            return row
        meant = json.loads(row.intent)
        content = atomic_files.read(Path(row.path)).content
        was_written = (None if content is None else fingerprint(content)) == meant["written"]
        return replace(row, intent=None, record=meant["record"] if was_written else row.record)

    def _moved_here(self, job: _Job) -> SidecarRow | None:
        """Return what is known of a sidecar that lay elsewhere when it was written."""
        content = atomic_files.read(job.path).content
        if content is None:
            return None
        found = self._store.sidecars.find_by_content(fingerprint(content))
        # A copy leaves the original where it is; each then has a record of its own.
        return found and replace(found, path=str(job.path), photo_id=job.wanted.photo_id)

    def _origin(self, tags: Sequence[StoredTag]) -> Origin | None:
        runs = [self._runs[tag.run_id] for tag in tags if tag.run_id in self._runs]
        if not runs:
            return None
        last = max(runs, key=lambda run: run.started_at)
        taxonomy = f"{last.index_name} {last.taxonomy[:12]}"
        return Origin(last.run_id, last.model_id or "imported embeddings", taxonomy)

    def _reject(self, done: Sequence[tuple[_Job, Prepared]]) -> int:
        """Remember what the user took out of sidecars, for all copies of the photo."""
        verdicts = {
            (job.wanted.content_hash, tag.label_id)
            for job, found in done
            for tag in _rejected(job, found)
            if job.wanted.content_hash is not None and tag.label_id is not None
        }
        if verdicts:
            self._store.verdicts.save(
                [(content, label_id, "rejected") for content, label_id in sorted(verdicts)],
                source="sidecar",
            )
        return len(verdicts)

    def _settle(self, done: Sequence[tuple[_Job, Prepared]]) -> None:
        rows, dropped = [], []
        for job, found in done:
            record = found.merged.record
            if record is None:
                dropped.append(str(job.path))
                continue
            gone = _rejected(job, found)
            digest = digest_tags([tag for tag in job.wanted.tags if tag not in gone])
            rows.append(_with_state(_row(job, record.to_json(), digest), found.merged.content))
        self._store.sidecars.save(rows)
        self._store.sidecars.remove(dropped)


def _rejected(job: _Job, prepared: Prepared) -> list[StoredTag]:
    """Return those of a photo's tags that the user took out of this sidecar."""
    record = prepared.merged.record
    gone = set(map(folded_path, record.rejected if record else ()))
    return [
        tag for tag in job.wanted.tags if tag.label_id is not None and folded_path(tag.path) in gone
    ]


def _row(job: _Job, record: str | None, digest: str = "") -> SidecarRow:
    """Return a row without the state of the file: it is looked at again by the next run."""
    return SidecarRow(
        str(job.path), job.wanted.photo_id, job.sidecar_for, digest, record, None, None, None
    )


def _intent(job: _Job, prepared: Prepared) -> SidecarRow:
    merged = prepared.merged
    meant = {
        "written": None if merged.content is None else fingerprint(merged.content),
        "record": merged.record and merged.record.to_json(),
    }
    row = job.row or _row(job, None)
    return replace(
        row,
        path=str(job.path),
        photo_id=job.wanted.photo_id,
        sidecar_for=job.sidecar_for,
        intent=json.dumps(meant, ensure_ascii=False),
    )


def _with_state(row: SidecarRow, content: bytes | None) -> SidecarRow:
    if content is None:
        return row
    try:
        found = Path(row.path).stat()
    except OSError:
        return row
    return replace(
        row, written=fingerprint(content), size=found.st_size, mtime_ns=found.st_mtime_ns
    )


def _photo_of(wanted: Wanted, sidecar: str) -> Path:
    """Return the file that a known sidecar is beside."""
    names = Path(sidecar).name
    return next((one for one in wanted.companions if names.startswith(one.name)), wanted.photo)
