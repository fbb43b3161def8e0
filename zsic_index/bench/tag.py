"""Tagging a photo library against decoding and the vision tower alone, and against a bare walk."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from zsic_index.bench import checkpoints
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.embedding_arrays import check_embeddings
from zsic_index.embeddings.images import IMAGES_PER_BATCH, OVERSAMPLING
from zsic_index.encoders import Encoder, Pixels, resolve
from zsic_index.encoders.source import EncoderSource
from zsic_index.images import opening
from zsic_index.label_index import LabelIndex
from zsic_index.library.run_report import RunReport
from zsic_index.library.run_settings import RunSettings
from zsic_index.library.tag_rules import TagSettings
from zsic_index.library.tagging import Tagging
from zsic_index.parallel import available_cores, batched
from zsic_index.querying.thresholds import Thresholds
from zsic_index.store import Store
from zsic_index.store.photo_records import PhotoOutcome, Run

SIZE = (2_048, 1_536)
"""Pixels of the photos."""

TAGS = 3
"""Tags that every photo gets."""

FILES_PER_FOLDER = 1_000

_BAD_EVERY = 100

_SEEDED_AT_ONCE = 10_000

_NAME = "bench"


def run(
    *,
    photos: int = 200,
    files: int = 10_000,
    embeddings: int = 100_000,
    labels: int = 1_000,
    model: str | None = None,
    rounds: int = 3,
) -> Iterator[Comparison]:
    """Time tagging.

    Args:
        photos: JPEG files of 3 megapixels that are tagged for the first time.
        files: small files that have not changed since they were tagged.
        embeddings: photos whose embeddings are there, under a new taxonomy.
        labels: N.
        model: a checkpoint; by default a random CLIP of the size of ViT-B/32.
        rounds: turns that count.
    """
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        folder, said = checkpoints.given_or_random(model, room)
        names = checkpoints.two_word_labels(labels)
        store = room / "store.db"
        LabelIndex.build(names, model=folder, name=_NAME, store=store, device="cpu").close()
        empty = _copied(store, room / "empty.db")
        yield _first_run(room, empty, photos, said, rounds)
        yield _unchanged(room, _copied(empty, room / "unchanged.db"), files, rounds)
        yield _new_taxonomy(room, _copied(empty, room / "new.db"), embeddings, names, rounds)


def _first_run(room: Path, empty: Path, photos: int, said: str, rounds: int) -> Comparison:
    good, bad = room / "good", room / "bad"
    _make_photos(good, photos)
    shutil.copytree(good, bad)
    for number in range(0, photos, _BAD_EVERY):
        path = bad / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:5_000])
    store = room / "first.db"
    encoder = EncoderSource.of(resolve(_model_of(empty)), device="cpu").encoder()
    prepared = [_prepare(encoder, path) for path in sorted(good.iterdir())]

    def decode() -> None:
        with ThreadPoolExecutor(available_cores()) as pool:
            for _ in pool.map(lambda path: _prepare(encoder, path), sorted(good.iterdir())):
                pass

    def tower() -> None:
        for start in range(0, photos, IMAGES_PER_BATCH):
            encoder.encode_images(prepared[start : start + IMAGES_PER_BATCH])

    def fresh() -> None:
        _copied(empty, store)

    return compare(
        f"{photos} JPEG files of {SIZE[0]} x {SIZE[1]}, {said}",
        [
            Contender("tag", lambda: _tag(store, good), fresh),
            Contender("decoding alone", decode),
            Contender("the vision tower alone", tower),
            Contender("tag, 1 % of the files cut off", lambda: _tag(store, bad), fresh),
        ],
        rounds=rounds,
    )


def _unchanged(room: Path, store: Path, files: int, rounds: int) -> Comparison:
    root = room / "unchanged"
    _seed(store, _make_files(root, files))
    _tag(store, root)

    def walk() -> int:
        return sum(
            os.stat(os.path.join(folder, name)).st_size  # noqa: PTH116, PTH118
            for folder, _, names in os.walk(root)
            for name in names
        )

    return compare(
        f"{files:,} files that have not changed",
        [
            Contender("tag", lambda: _tag(store, root)),
            Contender("looking at every file's size", walk),
        ],
        rounds=rounds,
    )


def _new_taxonomy(
    room: Path, store: Path, embeddings: int, names: list[str], rounds: int
) -> Comparison:
    root = room / "cached"
    _seed(store, _make_files(root, embeddings))
    given = [0]

    def other_labels() -> None:
        given[0] += 1
        changed = [*names[:-1], f"something new {given[0]}"]
        LabelIndex.build(changed, model=_model_of(store), name=_NAME, store=store).close()

    return compare(
        f"{embeddings:,} photos with embeddings, {len(names):,} labels of which one is new",
        [Contender("tag", lambda: _tag(store, root), other_labels)],
        rounds=rounds,
        warmup=0,
    )


def _tag(store: Path, root: Path) -> RunReport:
    with LabelIndex.open(
        _NAME, store=store, device="cpu", decode="scaled", keep_images=True
    ) as index:
        settings = RunSettings(
            (str(root),), tags=TagSettings(max_tags=TAGS), thresholds=Thresholds(0.0)
        )
        return Tagging(index, settings.rules(index), settings).run()


def _model_of(store: Path) -> str:
    with Store.open(store) as opened:
        model_id = opened.indexes.get(_NAME).model_id
    assert model_id is not None, "it was built with one"
    return model_id


def _prepare(encoder: Encoder, path: Path) -> Pixels:
    enough = OVERSAMPLING * encoder.image_size
    return encoder.preprocess(opening.decode(path.read_bytes(), str(path), at_least=enough))


def _copied(store: Path, target: Path) -> Path:
    shutil.copy2(store, target)
    shutil.copytree(f"{store}.indexes", f"{target}.indexes", dirs_exist_ok=True)
    return target


def _make_photos(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=90)


def _make_files(root: Path, count: int) -> list[Path]:
    """Make small files, each a picture with a number behind its end; return them."""
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(picture, "JPEG")
    paths = []
    for number in range(count):
        folder = root / f"{number // FILES_PER_FOLDER:04}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        path = folder / f"IMG_{number:06}.jpg"
        path.write_bytes(picture.getvalue() + str(number).encode())
        paths.append(path)
    return paths


def _seed(store: Path, paths: list[Path]) -> None:
    """Give photos random embeddings, as if they had been tagged before."""
    rng = np.random.default_rng(0)
    with LabelIndex.open(_NAME, store=store, decode="scaled", keep_images=True) as index:
        embedder, opened = index.encoder.image_embedder(), index.store
        run = opened.runs.start(Run("seed", "seed", _NAME, None, "", {}))
        fingerprint = index.info.encoder_fingerprint
        for part in batched(paths, _SEEDED_AT_ONCE):
            hashes = [hashlib.sha256(path.read_bytes()).digest() for path in part]
            rows = check_embeddings(rng.standard_normal((len(part), index.info.dim)))
            opened.embeddings.add(fingerprint, list(map(embedder.key, hashes)), rows)
            opened.photos.record(
                [_looked(path, content) for path, content in zip(part, hashes, strict=True)],
                index.info.index_id,
                run.run_id,
            )
        opened.runs.finish(run.run_id, "done", {})


def _looked(path: Path, content: bytes) -> PhotoOutcome:
    found = path.stat()
    return PhotoOutcome(str(path.parent), path.name, found.st_size, found.st_mtime_ns, content)
