"""What the store knows of photos, for people and other programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zsic_index.errors import InputError
from zsic_index.parallel import batched
from zsic_index.store import Store
from zsic_index.store.photo_records import StoredPhoto, StoredTag, VerdictName

FORMATS = ("csv", "jsonl", "parquet")

_AT_ONCE = 1_000

_TAG_COLUMNS = ("photo", "tag", "label", "probability", "index", "model", "run", "verdict")


@dataclass(frozen=True, slots=True)
class TagRecord:
    """A tag of ours on a photo; see ``store.photo_records.StoredTag``.

    Attributes:
        tag: its path from the root of automatic tags, joined by ``/``.
        label: its last part.
        probability: None for a node above a label.
        index: the index's name.
        model: the checkpoint.
        run: the run that gave it.
        verdict: what the user said of it, if anything.
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
    """A photo of a library.

    Attributes:
        photo: its path.
        problem: why it was refused.
        missing: whether the last whole walk did not find it.
        tags: most probable first.
    """

    photo: str
    problem: str | None
    missing: bool
    tags: tuple[TagRecord, ...]


def records(store: Store, photos: Iterable[StoredPhoto]) -> Iterator[PhotoRecord]:
    """Yield what the store knows of photos."""
    runs = {run.run_id: run for run in store.runs.all()}
    for part in batched(photos, _AT_ONCE):
        tags = store.tags.find([one.photo_id for one in part])
        verdicts = store.verdicts.find(one.content_hash for one in part if one.content_hash)
        for one in part:
            said = verdicts.get(one.content_hash or b"", {})

            def record(tag: StoredTag, said: dict[int, VerdictName] = said) -> TagRecord:
                run = runs[tag.run_id]
                verdict = None if tag.label_id is None else said.get(tag.label_id)
                return TagRecord(
                    "/".join(tag.path),
                    tag.path[-1],
                    tag.probability,
                    run.index_name,
                    run.model_id,
                    run.run_id,
                    verdict,
                )

            yield PhotoRecord(
                one.path,
                one.problem,
                one.missing_since is not None,
                tuple(map(record, tags[one.photo_id])),
            )


def export(found: Iterable[PhotoRecord], target: Path, format: str) -> int:
    """Write records to a file; return how many photos there were.

    ``jsonl`` has one photo a line with its tags; ``csv`` and ``parquet`` one row per tag.

    Raises:
        InputError: for ``parquet`` without pyarrow.
    """
    return _WRITERS[format](found, target)


def _export_jsonl(found: Iterable[PhotoRecord], target: Path) -> int:
    number = 0
    with target.open("w", encoding="utf-8", newline="\n") as file:
        for one in found:
            file.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
            number += 1
    return number


def _export_csv(found: Iterable[PhotoRecord], target: Path) -> int:
    number = 0
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _TAG_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for one in found:
            writer.writerows(_rows(one))
            number += 1
    return number


def _export_parquet(found: Iterable[PhotoRecord], target: Path) -> int:
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
        for part in batched(found, _AT_ONCE):
            number += len(part)
            rows = [row for one in part for row in _rows(one)]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=writer.schema))
    return number


def _rows(one: PhotoRecord) -> list[dict[str, Any]]:
    return [{"photo": one.photo} | asdict(tag) for tag in one.tags]


_WRITERS: dict[str, Callable[[Iterable[PhotoRecord], Path], int]] = {
    "csv": _export_csv,
    "jsonl": _export_jsonl,
    "parquet": _export_parquet,
}
