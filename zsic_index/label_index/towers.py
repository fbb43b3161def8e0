"""ONNX towers of indexes: written, measured against labels, verified, removed with the last index.

They lie beside the index files, and indexes with the same encoder share them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from zsic_index.calibration.precision import wilson_bound
from zsic_index.embedding_arrays import Float32
from zsic_index.embeddings.images import IMAGES_PER_BATCH
from zsic_index.embeddings.labels import ProgressCallback
from zsic_index.encoders import Checkpoint, Pixels, load_tower
from zsic_index.encoders.onnx.fidelity import bound_change
from zsic_index.encoders.onnx.files import (
    MAX_CHANGE,
    MIN_AGREEMENT,
    Agreement,
    TowerFiles,
    create_tower,
    find_tower,
    list_towers,
    locate_tower,
    lock_towers,
    remove_tower,
    write_record,
)
from zsic_index.encoders.runtime import PRECISIONS, can_write, check_installed, suits
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import IndexFileError, ModelError, StoreError
from zsic_index.images.opening import ImageSource, open_image
from zsic_index.images.prefetch import prepare_all
from zsic_index.label_index.contents import IndexContents
from zsic_index.parallel import available_cores
from zsic_index.records import IndexInfo, Precision, Runtime
from zsic_index.store import Store

logger = logging.getLogger("zsic_index")

_Z = 1.96
"""Standard normal quantile of a 95 % interval."""


def write_after_build(
    index: IndexContents,
    checkpoint: Checkpoint,
    source: EncoderSource,
    *,
    device: str,
    runtime: Runtime,
    progress: ProgressCallback | None = None,
) -> None:
    """Write the float32 tower of a new index, unless the runtime or the device is not for ONNX.

    With the runtime ``auto``, an index without a tower is as good: a failure is only logged. A
    tower that is there already is measured even where none can be written.

    Raises:
        ModelError: when a runtime of ONNX is chosen, and the tower cannot be made.
        StoreError: when it cannot be written.
    """
    if runtime == "torch":
        return
    if runtime != "auto":
        ensure_tower(index, checkpoint, source, progress=progress)
        return
    if not (checkpoint.has_onnx and suits(device, checkpoint.dtype)):
        return
    if not (can_write() or find_towers(index.store, index.info)):
        return
    try:
        ensure_tower(index, checkpoint, source, progress=progress)
    except (ModelError, StoreError) as error:
        logger.warning("index %r was built; torch is used: %s", index.info.name, error)


def ensure_tower(
    index: IndexContents,
    checkpoint: Checkpoint,
    source: EncoderSource,
    *,
    progress: ProgressCallback | None = None,
) -> TowerFiles:
    """Return the float32 tower of an index, after writing what is missing or damaged.

    A tower that other indexes have already is only measured with the labels of this one.

    Args:
        index: the index.
        checkpoint: the checkpoint of its model.
        source: encoder of the checkpoint on the CPU, loaded only if the tower has to be written.
        progress: called with (images compared, images to compare) while it is written.

    Raises:
        ModelError: when it cannot be made from this checkpoint.
        StoreError: when it cannot be written.
    """
    with suppress(IndexFileError):
        tower = _find_current(index, checkpoint)
        if tower is not None and tower.record.is_measured_with(index.info):
            return tower
    with lock_towers(index.store.location.files):
        # Another process may have written or measured it meanwhile.
        try:
            tower = _find_current(index, checkpoint)
        except IndexFileError as error:
            logger.warning("%s: writing it anew", error)
            tower = None
        if tower is None:
            tower = _write(index, checkpoint, source, progress)
        elif not tower.record.is_measured_with(index.info):
            tower = _measure(index, tower)
    if not tower.record.is_exact:
        logger.warning(
            "probabilities by the ONNX tower may differ by up to %.1e from torch's, which is more "
            "than %.0e: it is used with --runtime onnx only, and its embeddings are kept apart",
            tower.record.change,
            MAX_CHANGE,
        )
    return tower


def write_int8_tower(
    index: IndexContents,
    tower: TowerFiles,
    images: Sequence[ImageSource],
    *,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> TowerFiles:
    """Write the int8 tower of an index, and measure its agreement with float32 on images.

    Args:
        index: the index.
        tower: its float32 tower.
        images: images to measure with; those that cannot be used are left out. Without any, an
            int8 tower that is there already stays as it is.
        force: write it even if it agrees too seldom.
        progress: called with (images compared, images to compare) after each batch.

    Raises:
        ModelError: when it agrees too seldom, or cannot be made.
        StoreError: when it cannot be written.
    """
    check_installed()
    from zsic_index.encoders.onnx.int8 import write_int8

    info, folder = index.info, index.store.location.files
    if not images:
        with suppress(IndexFileError):
            present = find_tower(folder, info.encoder_fingerprint, "int8")
            if present is not None:
                return present
    with (
        lock_towers(folder),
        create_tower(folder, info.encoder_fingerprint, "int8") as temporary,
    ):
        record = write_int8(tower, index.embeddings, temporary)
        rounded = TowerFiles(temporary, record)
        record = replace(
            record,
            measured={info.name: info.checksum},
            agreement=_measure_agreement(index, tower, rounded, images, progress),
        )
        agreement = record.agreement
        if record.is_measured and agreement and agreement.top_1 < MIN_AGREEMENT and not force:
            raise ModelError(
                f"int8 has the first label of float32 on {agreement.top_1:.1%} of "
                f"{agreement.images} images ({agreement.low:.1%} to {agreement.high:.1%}), less "
                f"than {MIN_AGREEMENT:.0%}: it was not written; --force writes it all the same"
            )
        write_record(temporary, record)
    written = find_tower(folder, info.encoder_fingerprint, "int8")
    assert written is not None, "it has just been written"
    return written


def find_towers(store: Store, info: IndexInfo) -> list[TowerFiles]:
    """Return the towers of an index; damaged ones are left out, ``verify`` reports them."""
    towers = []
    for precision in PRECISIONS.values():
        try:
            tower = find_tower(store.location.files, info.encoder_fingerprint, precision)
        except IndexFileError:
            continue
        if tower is not None:
            towers.append(tower)
    return towers


def remove_damaged_towers(store: Store, info: IndexInfo) -> list[str]:
    """Read the towers of an index, remove the damaged ones and return their problems.

    The next build, or ``onnx write``, writes them anew.
    """
    problems = []
    folder, fingerprint = store.location.files, info.encoder_fingerprint
    for precision in PRECISIONS.values():
        if _find_damage(folder, fingerprint, precision) is None:
            continue
        with lock_towers(folder):
            # Another process may have replaced it while it was read.
            problem = _find_damage(folder, fingerprint, precision)
            if problem is not None:
                problems.append(problem)
                remove_tower(locate_tower(folder, fingerprint, precision))
    return problems


def remove_unused_towers(store: Store) -> None:
    """Remove the towers that no index of the store uses."""
    folder = store.location.files
    if not list_towers(folder):
        return
    with lock_towers(folder):
        used = {
            locate_tower(folder, info.encoder_fingerprint, precision)
            for info in store.indexes.all()
            for precision in PRECISIONS.values()
        }
        for path in list_towers(folder):
            if path not in used:
                remove_tower(path)


def _find_damage(folder: Path, fingerprint: str, precision: Precision) -> str | None:
    """Read a tower's files, and return what is wrong with them; None if nothing is."""
    try:
        tower = find_tower(folder, fingerprint, precision)
        if tower is not None:
            tower.verify()
    except (IndexFileError, OSError) as error:
        return str(error)
    return None


def _find_current(index: IndexContents, checkpoint: Checkpoint) -> TowerFiles | None:
    """Return the float32 tower of an index; None without one.

    Raises:
        IndexFileError: when it is damaged, or the checkpoint's image settings are other ones.
    """
    tower = find_tower(index.store.location.files, index.info.encoder_fingerprint, "float32")
    if tower is not None and tower.settings_fingerprint != checkpoint.image_fingerprint:
        raise IndexFileError(
            f"ONNX tower {tower.folder} has other image settings than model {checkpoint.model_id}"
        )
    return tower


def _write(
    index: IndexContents,
    checkpoint: Checkpoint,
    source: EncoderSource,
    progress: ProgressCallback | None,
) -> TowerFiles:
    """Write the float32 tower of an index, and measure it against torch."""
    check_installed()
    # torch and the exporter take seconds to import.
    from zsic_index.encoders.onnx.export import write_tower

    info, folder = index.info, index.store.location.files
    measured = {info.name: info.checksum}
    encoder, fingerprint = source.encoder(), info.encoder_fingerprint
    written = write_tower(
        folder, fingerprint, encoder, checkpoint, index.embeddings, measured, progress
    )
    with suppress(IndexFileError):
        rounded = find_tower(folder, fingerprint, "int8")
        if rounded and rounded.settings_fingerprint != written.settings_fingerprint:
            logger.warning("ONNX tower %s has other image settings: removed", rounded.folder)
            remove_tower(rounded.folder)
    return written


def _measure(index: IndexContents, tower: TowerFiles) -> TowerFiles:
    """Measure a tower with the labels of another index as well."""
    info, before = index.info, tower.record
    change = bound_change(
        tower.read_differences(), index.embeddings, before.logit_scale, before.activation
    )
    record = replace(
        before,
        measured={**before.measured, info.name: info.checksum},
        change=max(change, before.change),
    )
    write_record(tower.folder, record)
    if before.is_exact and not record.is_exact:
        logger.warning(
            "image embeddings by the ONNX tower that are in the store count as torch's, although "
            "with them probabilities of index %r may differ by up to %.1e",
            info.name,
            change,
        )
    return replace(tower, record=record)


def _measure_agreement(
    index: IndexContents,
    tower: TowerFiles,
    rounded: TowerFiles,
    images: Sequence[ImageSource],
    progress: ProgressCallback | None,
) -> Agreement | None:
    """Compare a rounded tower's embeddings and first labels; None without a usable image."""
    exact, other = load_tower(tower), load_tower(rounded)
    cosines: list[Float32] = []
    same: list[bool] = []

    def prepare(source: ImageSource) -> Pixels:
        return exact.preprocess(open_image(source))

    for batch in prepare_all(
        images, prepare, batch_size=IMAGES_PER_BATCH, threads=available_cores()
    ):
        pixels = [entry for entry in batch if isinstance(entry, dict)]
        for entry in batch:
            if not isinstance(entry, dict):
                logger.warning("left out: %s", entry)
        if not pixels:
            continue
        expected = exact.encode_images(pixels).embeddings
        actual = other.encode_images(pixels).embeddings
        cosines.append(np.einsum("bd,bd->b", expected, actual))
        first = [index.searcher.search(rows, 1).rows[:, 0] for rows in (expected, actual)]
        same += (first[0] == first[1]).tolist()
        if progress is not None:
            progress(len(same), len(images))
    if not same:
        return None
    hits, number = np.array([sum(same)]), np.array([len(same)])
    all_cosines = np.concatenate(cosines)
    return Agreement(
        images=len(same),
        mean_cosine=float(all_cosines.mean()),
        min_cosine=float(all_cosines.min()),
        top_1=float(hits[0] / number[0]),
        low=float(wilson_bound(hits, number, _Z)[0]),
        high=float(wilson_bound(hits, number, -_Z)[0]),
    )
