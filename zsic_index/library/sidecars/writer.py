"""Write the stored tags of many photos to their sidecars, so that a kill leaves no doubt.

Before a sidecar is written, the store saves an intent: the content that it is about to get. After a
kill the file itself shows whether it was written, because its sha256 is that of the intent or it is
not. Intents are committed for many files at once, and so are the outcomes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zsic_index.errors import InputError, SidecarError
from zsic_index.library.sidecars.embedded import embedded_tags
from zsic_index.library.sidecars.keywords import Tag, folded_path
from zsic_index.library.sidecars.ledger import Origin
from zsic_index.library.sidecars.paths import FolderNames, Style, choose
from zsic_index.library.sidecars.prepared import PreparedSidecar, prepare, put
from zsic_index.library.sidecars.reader import SidecarReader
from zsic_index.library.sidecars.record import SidecarRecord, fingerprint
from zsic_index.store import Store
from zsic_index.store.photo_records import Run, SidecarRow, StoredTag, digest_tags


@dataclass(frozen=True, slots=True)
class TaggedPhoto:
    """A photo with the tags of ours that its sidecars are to have.

    Attributes:
        photo_id: the photo's id in the store.
        content_hash: hash of its content; None for a photo that could not be read.
        path: its path.
        companions: paths of the files that share its tags.
        names: the names in its folder; None to write only to sidecars written before.
        tags: all its tags.
    """

    photo_id: int
    content_hash: bytes | None
    path: Path
    companions: tuple[Path, ...]
    names: FolderNames | None
    tags: tuple[StoredTag, ...]


@dataclass(slots=True)
class WriteReport:
    """Outcome of writing sidecars.

    Attributes:
        written: number of sidecars created or changed.
        removed: number of sidecars removed because we created them and nothing is left in them.
        unchanged: number of sidecars that needed no change.
        rejected: number of tags that the user removed from sidecars, now stored as rejected.
        failed: ids of photos with a sidecar that was left unchanged.
        problems: one line for each such sidecar.
        warnings: one line for each choice that the user should know about.
    """

    written: int = 0
    removed: int = 0
    unchanged: int = 0
    rejected: int = 0
    failed: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def fail(self, photo_id: int, error: Exception) -> None:
        """Count a sidecar that is left unchanged."""
        self.failed.add(photo_id)
        self.problems.append(str(error))

    def add(self, other: WriteReport) -> None:
        """Add the outcome of another batch."""
        self.written += other.written
        self.removed += other.removed
        self.unchanged += other.unchanged
        self.rejected += other.rejected
        self.failed |= other.failed
        self.problems += other.problems
        self.warnings += other.warnings


@dataclass(frozen=True, slots=True)
class _PhotoSidecar:
    """One sidecar of one photo.

    Attributes:
        photo: the photo, with its tags.
        path: the sidecar.
        sidecar_for: see ``paths.SidecarPath``.
        beside: the file that the sidecar is for: the photo, or a companion.
        row: its row in the store; None for a sidecar that was never written.
    """

    photo: TaggedPhoto
    path: Path
    sidecar_for: str
    beside: Path
    row: SidecarRow | None

    @property
    def record(self) -> SidecarRecord | None:
        text = None if self.row is None else self.row.record
        return None if text is None else SidecarRecord.from_json(text)


_Prepared = tuple[_PhotoSidecar, PreparedSidecar]


class SidecarWriter:
    """Writes the sidecars of many photos."""

    def __init__(
        self,
        store: Store,
        runs: Mapping[str, Run],
        *,
        style: Style = "full",
        both: bool = False,
    ) -> None:
        """Create a writer.

        Args:
            store: the store that the photos are in.
            runs: all runs by id, for the ledgers.
            style: name of new sidecars; see ``paths.choose``.
            both: whether both sidecars of a photo that has two are written.
        """
        self._store = store
        self._runs = runs
        self._style: Style = style
        self._both = both

    def write(self, photos: Sequence[TaggedPhoto]) -> WriteReport:
        """Bring the sidecars of photos in line with the tags in the store."""
        report = WriteReport()
        prepared = self._prepare_all(photos, report)
        self._store.sidecars.save(
            [_with_intent(sidecar, content) for sidecar, content in prepared if content.changes]
        )
        done: list[_Prepared] = []
        for sidecar, content in prepared:
            try:
                done.append((sidecar, self._put(sidecar, content) if content.changes else content))
            except InputError as error:
                # The intent stays: the next run checks whether the file was written all the same.
                report.fail(sidecar.photo.photo_id, error)
                continue
            if not content.changes:
                report.unchanged += 1
            elif content.merged.content is None:
                report.removed += 1
            else:
                report.written += 1
        report.rejected += self._save_rejected(done)
        self._save_outcomes(done)
        return report

    def _prepare_all(self, photos: Sequence[TaggedPhoto], report: WriteReport) -> list[_Prepared]:
        rows = self._store.sidecars.find([photo.photo_id for photo in photos])
        prepared: list[_Prepared] = []
        for photo in photos:
            reader = SidecarReader()
            for sidecar in self._choose(photo, rows.get(photo.photo_id, ()), reader, report):
                try:
                    prepared.append((sidecar, self._prepare(sidecar, reader)))
                except InputError as error:
                    report.fail(photo.photo_id, error)
        return prepared

    def _choose(
        self,
        photo: TaggedPhoto,
        rows: Sequence[SidecarRow],
        reader: SidecarReader,
        report: WriteReport,
    ) -> list[_PhotoSidecar]:
        """Return the sidecars of a photo that may have to be written."""
        try:
            stored = {row.path: _resolve_intent(row, reader) for row in rows}
        except SidecarError as error:
            report.fail(photo.photo_id, error)
            return []
        if not photo.tags and not stored:
            return []
        if photo.names is None:
            return [
                _PhotoSidecar(photo, Path(path), row.sidecar_for, _file_beside(photo, path), row)
                for path, row in stored.items()
            ]
        sidecars: list[_PhotoSidecar] = []
        for file in (photo.path, *photo.companions):
            try:
                choice = choose(
                    file, photo.names, style=self._style, both=self._both, reader=reader
                )
            except SidecarError as error:
                report.fail(photo.photo_id, error)
                continue
            if choice.warning:
                report.warnings.append(choice.warning)
            sidecars += [
                _PhotoSidecar(
                    photo, chosen.path, chosen.sidecar_for, file, stored.get(str(chosen.path))
                )
                for chosen in choice.files
                if photo.tags or str(chosen.path) in stored or chosen.path.exists()
            ]
        return sidecars

    def _prepare(self, sidecar: _PhotoSidecar, reader: SidecarReader) -> PreparedSidecar:
        if sidecar.row is None:
            sidecar = replace(sidecar, row=self._find_moved(sidecar, reader))
        tags = [Tag(tag.path, tag.label_id, tag.probability) for tag in sidecar.photo.tags]
        return prepare(
            sidecar.path,
            tags,
            sidecar.record,
            origin=self._origin(sidecar.photo.tags),
            embedded=embedded_tags(sidecar.beside) if tags else (),
            sidecar_for=sidecar.sidecar_for,
            reader=reader,
        )

    def _put(self, sidecar: _PhotoSidecar, prepared: PreparedSidecar) -> PreparedSidecar:
        def prepare_again() -> PreparedSidecar:
            content = self._prepare(sidecar, SidecarReader())
            self._store.sidecars.save([_with_intent(sidecar, content)])
            return content

        return put(sidecar.path, prepared, prepare_again)

    def _find_moved(self, sidecar: _PhotoSidecar, reader: SidecarReader) -> SidecarRow | None:
        """Return the row of a sidecar that was written under another path, if it was."""
        content = reader.read(sidecar.path).content
        if content is None:
            return None
        row = self._store.sidecars.find_by_content(fingerprint(content))
        # The original of a copied sidecar stays where it is; each of both then has its own row.
        return row and replace(row, path=str(sidecar.path), photo_id=sidecar.photo.photo_id)

    def _origin(self, tags: Sequence[StoredTag]) -> Origin | None:
        """Return the provenance of tags: that of the latest of their runs."""
        runs = [self._runs[tag.run_id] for tag in tags if tag.run_id in self._runs]
        if not runs:
            return None
        last = max(runs, key=lambda run: run.started_at)
        taxonomy = f"{last.index_name} {last.taxonomy[:12]}"
        return Origin(last.run_id, last.model_id or "imported embeddings", taxonomy)

    def _save_rejected(self, done: Sequence[_Prepared]) -> int:
        """Save verdicts on the tags that the user removed, for all copies of the photo."""
        verdicts = {
            (sidecar.photo.content_hash, tag.label_id)
            for sidecar, content in done
            for tag in _rejected(sidecar, content)
            if sidecar.photo.content_hash is not None and tag.label_id is not None
        }
        if verdicts:
            self._store.verdicts.save(
                [(photo, label_id, "rejected") for photo, label_id in sorted(verdicts)],
                source="sidecar",
            )
        return len(verdicts)

    def _save_outcomes(self, done: Sequence[_Prepared]) -> None:
        rows, forgotten = [], []
        for sidecar, content in done:
            record = content.merged.record
            if record is None:
                forgotten.append(str(sidecar.path))
                continue
            rejected = _rejected(sidecar, content)
            digest = digest_tags([tag for tag in sidecar.photo.tags if tag not in rejected])
            row = _row(sidecar, record.to_json(), digest)
            rows.append(_with_state(row, content.merged.content))
        self._store.sidecars.save(rows)
        self._store.sidecars.remove(forgotten)


def _resolve_intent(row: SidecarRow, reader: SidecarReader) -> SidecarRow:
    """Return a row without intent; after a kill the file shows whether it was carried out."""
    if row.intent is None:
        return row
    intent = json.loads(row.intent)
    content = reader.read(Path(row.path)).content
    was_written = (None if content is None else fingerprint(content)) == intent["written"]
    return replace(row, intent=None, record=intent["record"] if was_written else row.record)


def _rejected(sidecar: _PhotoSidecar, prepared: PreparedSidecar) -> list[StoredTag]:
    """Return those of a photo's tags that the user removed from this sidecar."""
    record = prepared.merged.record
    rejected = set(map(folded_path, record.rejected if record else ()))
    return [
        tag
        for tag in sidecar.photo.tags
        if tag.label_id is not None and folded_path(tag.path) in rejected
    ]


def _row(sidecar: _PhotoSidecar, record: str | None, digest: str = "") -> SidecarRow:
    """Return a row without the file's state, so that the next run reads the file again."""
    return SidecarRow(
        str(sidecar.path),
        sidecar.photo.photo_id,
        sidecar.sidecar_for,
        digest,
        record,
        None,
        None,
        None,
    )


def _with_intent(sidecar: _PhotoSidecar, prepared: PreparedSidecar) -> SidecarRow:
    """Return a sidecar's row with the content that it is about to get."""
    merged = prepared.merged
    intent = {
        "written": None if merged.content is None else fingerprint(merged.content),
        "record": merged.record and merged.record.to_json(),
    }
    return replace(
        sidecar.row or _row(sidecar, None),
        path=str(sidecar.path),
        photo_id=sidecar.photo.photo_id,
        sidecar_for=sidecar.sidecar_for,
        intent=json.dumps(intent, ensure_ascii=False),
    )


def _with_state(row: SidecarRow, content: bytes | None) -> SidecarRow:
    """Return a row with the state of the file just written."""
    if content is None:
        return row
    try:
        status = Path(row.path).stat()
    except OSError:
        return row
    return replace(
        row, written=fingerprint(content), size=status.st_size, mtime_ns=status.st_mtime_ns
    )


def _file_beside(photo: TaggedPhoto, sidecar: str) -> Path:
    """Return the photo or companion that a sidecar written before is for."""
    name = Path(sidecar).name
    companions = (path for path in photo.companions if name.startswith(path.name))
    return next(companions, photo.path)
