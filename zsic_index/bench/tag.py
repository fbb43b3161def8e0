"""Tagging photos, compared with decoding, with the vision tower alone and with a bare walk."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from zsic_index.bench import checkpoints
from zsic_index.bench.indexes import NAME, build_index
from zsic_index.bench.photos import write_photos
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
from zsic_index.records import Runtime
from zsic_index.store import Store
from zsic_index.store.photo_records import PhotoOutcome, Run

SIZE = (2_048, 1_536)
"""Width and height of the photos in pixels."""

TAGS = 3
"""Number of tags that every photo gets."""

FILES_PER_FOLDER = 1_000

_DAMAGED_EVERY = 100

_SEED_BATCH = 10_000


def run(
    *,
    photos: int = 200,
    files: int = 10_000,
    embeddings: int = 100_000,
    labels: int = 1_000,
    model: str | None = None,
    runtime: Runtime | None = None,
    rounds: int = 3,
) -> Iterator[Comparison]:
    """Yield comparisons for new photos, for unchanged files and for a new taxonomy.

    Args:
        photos: number of new JPEG files, of 3 megapixels each.
        files: number of small files that have not changed since they were tagged.
        embeddings: number of photos with stored embeddings, tagged with a new taxonomy.
        labels: number of labels, N.
        model: checkpoint; by default a random CLIP of ViT-B/32's size.
        runtime: runtime of the vision tower of tag; see ``LabelIndex.build``. The vision tower
            alone is torch's.
        rounds: timed rounds.
    """
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        folder, description = checkpoints.get_checkpoint(model, workspace)
        names = checkpoints.two_word_labels(labels)
        store = workspace / "store.db"
        with build_index(names, model=folder, store=store, runtime=runtime) as index:
            runtime = index.encoder.runtime
        empty = _copy_store(store, workspace / "empty.db")
        yield _time_new_photos(workspace, empty, photos, runtime, description, rounds)
        unchanged = _copy_store(empty, workspace / "unchanged.db")
        yield _time_unchanged_files(workspace, unchanged, files, runtime, rounds)
        new = _copy_store(empty, workspace / "new.db")
        yield _time_new_taxonomy(workspace, new, embeddings, names, runtime, rounds)


def _time_new_photos(
    workspace: Path, empty: Path, photos: int, runtime: Runtime, description: str, rounds: int
) -> Comparison:
    good, damaged = workspace / "good", workspace / "damaged"
    write_photos(good, photos, SIZE)
    shutil.copytree(good, damaged)
    for number in range(0, photos, _DAMAGED_EVERY):
        path = damaged / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:5_000])
    store = _copy_store(empty, workspace / "first.db")
    encoder = EncoderSource.of(resolve(_get_model(empty)), device="cpu").encoder()
    pixels = [_preprocess(encoder, path) for path in sorted(good.iterdir())]

    def decode() -> None:
        with ThreadPoolExecutor(available_cores()) as pool:
            for _ in pool.map(lambda path: _preprocess(encoder, path), sorted(good.iterdir())):
                pass

    def tower() -> None:
        for start in range(0, photos, IMAGES_PER_BATCH):
            encoder.encode_images(pixels[start : start + IMAGES_PER_BATCH])

    def reset_store() -> None:
        # Tagging does not touch the files of the index.
        shutil.copy2(empty, store)

    return compare(
        f"{photos} JPEG files of {SIZE[0]} x {SIZE[1]}, {description}",
        [
            Contender(f"tag with {runtime}", lambda: _tag(store, good, runtime), reset_store),
            Contender("decoding alone", decode),
            Contender("torch's vision tower alone", tower),
            Contender(
                "tag, 1 % of the files cut off", lambda: _tag(store, damaged, runtime), reset_store
            ),
        ],
        rounds=rounds,
    )


def _time_unchanged_files(
    workspace: Path, store: Path, files: int, runtime: Runtime, rounds: int
) -> Comparison:
    root = workspace / "unchanged"
    _add_embeddings(store, _write_small_files(root, files), runtime)
    _tag(store, root, runtime)

    def walk() -> int:
        return sum(
            os.stat(os.path.join(folder, name)).st_size  # noqa: PTH116, PTH118
            for folder, _, names in os.walk(root)
            for name in names
        )

    return compare(
        f"{files:,} files that have not changed",
        [
            Contender("tag", lambda: _tag(store, root, runtime)),
            Contender("looking at every file's size", walk),
        ],
        rounds=rounds,
    )


def _time_new_taxonomy(
    workspace: Path,
    store: Path,
    embeddings: int,
    names: list[str],
    runtime: Runtime,
    rounds: int,
) -> Comparison:
    root = workspace / "cached"
    _add_embeddings(store, _write_small_files(root, embeddings), runtime)
    numbers = itertools.count(1)

    def replace_one_label() -> None:
        labels = [*names[:-1], f"something new {next(numbers)}"]
        LabelIndex.build(
            labels,
            model=_get_model(store),
            name=NAME,
            store=store,
            device="cpu",
            runtime=runtime,
        ).close()

    return compare(
        f"{embeddings:,} photos with embeddings, {len(names):,} labels of which one is new",
        [Contender("tag", lambda: _tag(store, root, runtime), replace_one_label)],
        rounds=rounds,
        warmup=0,
    )


def _tag(store: Path, root: Path, runtime: Runtime) -> RunReport:
    with _open_index(store, runtime) as index:
        settings = RunSettings(
            (str(root),), tags=TagSettings(max_tags=TAGS), thresholds=Thresholds(0.0)
        )
        return Tagging(settings.rules(index), settings).run()


def _open_index(store: Path, runtime: Runtime) -> LabelIndex:
    return LabelIndex.open(
        NAME, store=store, device="cpu", runtime=runtime, decode="scaled", keep_images=True
    )


def _get_model(store: Path) -> str:
    with Store.open(store) as opened:
        model_id = opened.indexes.get(NAME).model_id
    assert model_id is not None, "the index was built with a model"
    return model_id


def _preprocess(encoder: Encoder, path: Path) -> Pixels:
    size = OVERSAMPLING * encoder.image_size
    return encoder.preprocess(opening.decode(path.read_bytes(), str(path), min_side=size))


def _copy_store(store: Path, target: Path) -> Path:
    shutil.copy2(store, target)
    shutil.copytree(f"{store}.indexes", f"{target}.indexes", dirs_exist_ok=True)
    return target


def _write_small_files(root: Path, count: int) -> list[Path]:
    """Write small JPEG files with distinct content and return their paths."""
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(picture, "JPEG")
    paths = []
    for number in range(count):
        folder = root / f"{number // FILES_PER_FOLDER:04}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        path = folder / f"IMG_{number:06}.jpg"
        # A number behind the end of the JPEG makes the content distinct.
        path.write_bytes(picture.getvalue() + str(number).encode())
        paths.append(path)
    return paths


def _add_embeddings(store: Path, paths: list[Path], runtime: Runtime) -> None:
    """Record photos with random embeddings, as if they had been tagged before."""
    rng = np.random.default_rng(0)
    with _open_index(store, runtime) as index:
        embedder, opened = index.encoder.image_embedder(), index.store
        run = opened.runs.start(Run("seed", "seed", NAME, None, "", {}))
        fingerprint = index.info.encoder_fingerprint
        for part in batched(paths, _SEED_BATCH):
            hashes = [hashlib.sha256(path.read_bytes()).digest() for path in part]
            rows = check_embeddings(rng.standard_normal((len(part), index.info.dim)))
            opened.embeddings.add(fingerprint, list(map(embedder.fingerprint_image, hashes)), rows)
            opened.photos.record(
                [_outcome(path, content) for path, content in zip(part, hashes, strict=True)],
                index.info.index_id,
                run.run_id,
            )
        opened.runs.finish(run.run_id, "done", {})


def _outcome(path: Path, content_hash: bytes) -> PhotoOutcome:
    stat = path.stat()
    return PhotoOutcome(str(path.parent), path.name, stat.st_size, stat.st_mtime_ns, content_hash)
