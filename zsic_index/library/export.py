"""Export photos and their tags from the store, for people and other programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zsic_index.errors import InputError
from zsic_index.parallel import batched
from zsic_index.store import Store
from zsic_index.store.photo_records import Run, StoredPhoto, StoredTag, VerdictName

FORMATS = ("csv", "jsonl", "parquet")

_BATCH = 1_000
"""Number of photos that are read together."""

_TAG_COLUMNS = ("photo", "tag", "label", "probability", "index", "model", "run", "verdict")


@dataclass(frozen=True, slots=True)
class TagRecord:
    """An exported tag of a photo; see ``store.photo_records.StoredTag``.

    Attributes:
        tag: its path from the root of automatic tags, joined by ``/``.
        label: the last part of its path.
        probability: of the label; None for a node above a label.
        index: name of the index.
        model: the checkpoint.
        run: id of the run that gave it.
        verdict: the user's verdict on it; None without one.
    """

    tag: str
    label: str
    probability: float | None
    index: str
    model: str | None
    run: str
    verdict: VerdictName | None


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """An exported photo of a library.

    Attributes:
        photo: its path.
        problem: reason for which it was refused; None for a photo with tags.
        missing: whether the last complete walk did not find it.
        tags: its tags, most probable first.
    """

    photo: str
    problem: str | None
    missing: bool
    tags: tuple[TagRecord, ...]


def records(store: Store, photos: Iterable[StoredPhoto]) -> Iterator[PhotoRecord]:
    """Yield photos with their tags and verdicts."""
    runs = {run.run_id: run for run in store.runs.all()}
    for part in batched(photos, _BATCH):
        tags = store.tags.find([photo.photo_id for photo in part])
        verdicts = store.verdicts.find(photo.content_hash for photo in part if photo.content_hash)
        for photo in part:
            of_photo = verdicts.get(photo.content_hash or b"", {})
            yield PhotoRecord(
                photo.path,
                photo.problem,
                photo.missing_since is not None,
                tuple(_tag_record(tag, runs[tag.run_id], of_photo) for tag in tags[photo.photo_id]),
            )


def _tag_record(tag: StoredTag, run: Run, verdicts: Mapping[int, VerdictName]) -> TagRecord:
    return TagRecord(
        "/".join(tag.path),
        tag.path[-1],
        tag.probability,
        run.index_name,
        run.model_id,
        run.run_id,
        None if tag.label_id is None else verdicts.get(tag.label_id),
    )


def export(photos: Iterable[PhotoRecord], target: Path, format: str) -> int:
    """Write photos to a file; return their number.

    ``jsonl`` has one line per photo, with its tags; ``csv`` and ``parquet`` have one row per tag.

    Raises:
        InputError: for ``parquet`` without pyarrow.
    """
    return _WRITERS[format](photos, target)


def _export_jsonl(photos: Iterable[PhotoRecord], target: Path) -> int:
    number = 0
    with target.open("w", encoding="utf-8", newline="\n") as file:
        for photo in photos:
            file.write(json.dumps(asdict(photo), ensure_ascii=False) + "\n")
            number += 1
    return number


def _export_csv(photos: Iterable[PhotoRecord], target: Path) -> int:
    number = 0
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _TAG_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for photo in photos:
            writer.writerows(_rows(photo))
            number += 1
    return number


def _export_parquet(photos: Iterable[PhotoRecord], target: Path) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            "parquet needs the extra parquet: pip install 'zsic-index[parquet]'"
        ) from None
    text, number = pyarrow.string(), 0
    types = {name: pyarrow.float64() if name == "probability" else text for name in _TAG_COLUMNS}
    with parquet.ParquetWriter(target, pyarrow.schema(types.items())) as writer:
        for part in batched(photos, _BATCH):
            number += len(part)
            rows = [row for photo in part for row in _rows(photo)]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=writer.schema))
    return number


def _rows(photo: PhotoRecord) -> list[dict[str, Any]]:
    return [{"photo": photo.photo} | asdict(tag) for tag in photo.tags]


_WRITERS: dict[str, Callable[[Iterable[PhotoRecord], Path], int]] = {
    "csv": _export_csv,
    "jsonl": _export_jsonl,
    "parquet": _export_parquet,
}
