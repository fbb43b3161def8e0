"""ONNX towers of indexes: written, measured against labels, removed with the last index."""

from __future__ import annotations

import logging
from dataclasses import replace

from zsic_index.embeddings.labels import ProgressCallback
from zsic_index.encoders import Checkpoint
from zsic_index.encoders.onnx.fidelity import largest_difference
from zsic_index.encoders.onnx.files import (
    TowerFiles,
    find_tower,
    list_towers,
    locate_tower,
    remove_tower,
    write_record,
)
from zsic_index.encoders.runtime import PRECISIONS
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import IndexFileError
from zsic_index.index_files import IndexFiles
from zsic_index.records import IndexInfo
from zsic_index.store import Store

logger = logging.getLogger("zsic_index")


def ensure_tower(
    store: Store,
    info: IndexInfo,
    files: IndexFiles,
    checkpoint: Checkpoint,
    source: EncoderSource,
    *,
    progress: ProgressCallback | None = None,
) -> TowerFiles:
    """Return the float32 tower of an index, after writing what is missing or damaged.

    A tower that other indexes have already is only measured with the labels of this one.

    Args:
        store: the store, beside whose index files the tower is.
        info: the index.
        files: its open files.
        checkpoint: the checkpoint of its model.
        source: encoder of the checkpoint, loaded only if the tower has to be written.
        progress: called with (images compared, images to compare) while it is written.

    Raises:
        ModelError: when it cannot be made from this checkpoint.
        StoreError: when it cannot be written.
    """
    folder, fingerprint = store.location.files, info.encoder_fingerprint
    try:
        tower = find_tower(folder, fingerprint, "float32")
    except IndexFileError as error:
        logger.warning("%s: writing it anew", error)
        tower = None
    if tower is None:
        # torch and the exporter take seconds to import.
        from zsic_index.encoders.onnx.export import write_tower

        labels = {info.name: (info.checksum, files.matrix)}
        return write_tower(folder, fingerprint, source.encoder(), checkpoint, labels, progress)
    record = tower.record
    if record.measured.get(info.name) == info.checksum:
        return tower
    difference = largest_difference(tower.read_differences(), files.matrix)
    record = replace(
        record,
        measured={**record.measured, info.name: info.checksum},
        difference=max(difference, record.difference),
    )
    write_record(tower.folder, record)
    return replace(tower, record=record)


def remove_unused_towers(store: Store) -> None:
    """Remove the towers that no index of the store uses."""
    folder = store.location.files
    used = {
        locate_tower(folder, info.encoder_fingerprint, precision)
        for info in store.indexes.all()
        for precision in PRECISIONS.values()
    }
    for path in list_towers(folder):
        if path not in used:
            remove_tower(path)
