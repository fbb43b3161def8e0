"""Export of an index to files that a program without this package can use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from zsic_index.encoders.image_transform import read_transform
from zsic_index.encoders.onnx.files import GRAPH_FILE, WEIGHTS_FILE, TowerFiles
from zsic_index.errors import InputError, ModelError, StoreError
from zsic_index.formats.atomic_files import put_in_place, temporary_file
from zsic_index.label_index.contents import IndexContents

_EXAMPLE = Path(__file__).with_name("exported_example.py")


def export_index(index: IndexContents, tower: TowerFiles, folder: Path) -> list[Path]:
    """Write an index to a folder, and return the paths of the files.

    ``model.onnx`` and ``model.onnx.data`` are the vision tower, from (B, 3, H, W) float32 pixels to
    (B, D) float32 unit-norm embeddings. ``labels.npy`` has the (N, D) float32 label embeddings,
    ``levels.npy`` the (3, 256) float32 inputs for the values of a pixel in red, green and blue.
    ``index.json`` has the rest: names of the labels in row order, logit scale and bias, activation,
    the sizes that images are scaled and cut to, and whether a transparent colour becomes white.
    ``classify.py`` is an example that uses them.

    Args:
        index: the index.
        tower: one of its towers.
        folder: folder to write to, created when missing; files of these names are replaced.

    Raises:
        InputError: when the index has several rows for a label.
        ModelError: when the preprocessing of images cannot be written down.
        StoreError: when a file cannot be written.
    """
    info = index.info
    if info.name_pooling != "mean":
        raise InputError(
            f"index {info.name!r} has name pooling {info.name_pooling!r}, of which the files would "
            "know nothing: build it with name pooling 'mean'"
        )
    transform = read_transform(tower.folder)
    if transform is None:
        raise ModelError(
            f"the image settings of model {info.model_id} can be used with transformers only "
            "(torchvision is installed, or they are unusual), so they cannot be exported"
        )
    description = {
        "name": info.name,
        "model": info.model_id,
        "revision": info.revision,
        "precision": tower.record.precision,
        "templates": info.templates,
        "logit_scale": info.logit_scale,
        "logit_bias": info.logit_bias,
        "activation": info.activation,
        "image": {
            "resize": transform.resize,
            "resample": int(transform.resample),
            "crop": transform.crop,
            "on_white": transform.on_white,
        },
        "labels": index.labels,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, name in _copies(tower):
            with temporary_file(folder) as temporary:
                shutil.copyfile(source, temporary)
                put_in_place(temporary, folder / name)
        for name, array in (("labels.npy", index.embeddings), ("levels.npy", transform.levels)):
            with temporary_file(folder) as temporary:
                with temporary.open("wb") as file:
                    np.save(file, array)
                put_in_place(temporary, folder / name)
        with temporary_file(folder) as temporary:
            text = json.dumps(description, ensure_ascii=False, indent=1)
            temporary.write_text(text, encoding="utf-8")
            put_in_place(temporary, folder / "index.json")
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written: {error.strerror or error}: free some space or choose "
            "another folder"
        ) from error
    names = [name for _, name in _copies(tower)]
    return [folder / name for name in (*names, "labels.npy", "levels.npy", "index.json")]


def _copies(tower: TowerFiles) -> list[tuple[Path, str]]:
    """Return source and name of the files that are copied as they are."""
    copies = [(tower.folder / GRAPH_FILE, GRAPH_FILE), (_EXAMPLE, "classify.py")]
    if WEIGHTS_FILE in tower.record.files:
        copies.insert(1, (tower.folder / WEIGHTS_FILE, WEIGHTS_FILE))
    return copies
