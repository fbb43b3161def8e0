"""ONNX towers with weights of eight bits."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from zsic_index.embedding_arrays import Float32
from zsic_index.encoders.onnx.fidelity import (
    bound_change,
    generate_probes,
    measure_differences,
)
from zsic_index.encoders.onnx.files import (
    DIFFERENCES_FILE,
    GRAPH_FILE,
    WEIGHTS_FILE,
    TowerFiles,
    TowerRecord,
    copy_settings,
    describe_files,
)
from zsic_index.encoders.onnx.tower import OnnxTower
from zsic_index.errors import ModelError

_BLOCK = 128
"""Number of weights that share a scale."""

_INT8_PRODUCTS = 4
"""ONNX Runtime's accuracy level at which it rounds activations to eight bits as well."""

_MAX_SHARE = 0.6
"""Largest size of the weights, as a share of those in float32, that counts as quantised."""


def write_int8(tower: TowerFiles, labels: Float32, folder: Path) -> TowerRecord:
    """Write a tower's matrices in eight bits to a folder, and measure it against float32.

    Args:
        tower: tower in float32.
        labels: (R, D) float32 unit-norm label embeddings that it is measured with.
        folder: existing folder to write to.

    Returns:
        The record, without agreement; it is not written.

    Raises:
        ModelError: when too few of the weights are in matrix products.
    """
    quantise_graph(tower.folder, folder)
    exact, rounded = OnnxTower.load(tower.folder), OnnxTower.load(folder)
    differences = measure_differences(
        map(exact.preprocess, generate_probes()), exact.encode_images, rounded.encode_images
    )
    np.save(folder / DIFFERENCES_FILE, differences)
    return replace(
        tower.record,
        precision="int8",
        images=len(differences),
        change=bound_change(differences, labels, tower.record.logit_scale, tower.record.activation),
        files=describe_files(folder),
    )


def quantise_graph(source: Path, folder: Path) -> None:
    """Write graph, weights and image settings of a tower to a folder, matrices in eight bits.

    Weights are rounded symmetrically, in blocks with a scale each. What is no matrix product,
    such as a convolution, stays in float32.

    Args:
        source: folder of the tower in float32.
        folder: existing folder to write to.

    Raises:
        ModelError: when too few of the weights are in matrix products.
    """
    with _quiet_logging():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantiser = MatMulNBitsQuantizer(
            onnx.load(str(source / GRAPH_FILE)),
            bits=8,
            block_size=_BLOCK,
            is_symmetric=True,
            accuracy_level=_INT8_PRODUCTS,
        )
        quantiser.process()
    onnx.save(
        quantiser.model.model,
        str(folder / GRAPH_FILE),
        save_as_external_data=True,
        location=WEIGHTS_FILE,
    )
    if (folder / WEIGHTS_FILE).exists():
        # Others may read them: onnx writes weights for the user alone.
        shutil.copymode(folder / GRAPH_FILE, folder / WEIGHTS_FILE)
    before, after = (
        (path / WEIGHTS_FILE).stat().st_size if (path / WEIGHTS_FILE).exists() else 0
        for path in (source, folder)
    )
    if after > _MAX_SHARE * before:
        raise ModelError(
            f"the weights of this vision tower take {after / 1e6:.1f} MB in int8 and "
            f"{before / 1e6:.1f} MB in float32: too few of them are in matrix products; use "
            "--precision float32"
        )
    copy_settings(source, folder)


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Undo what ONNX Runtime's quantiser does to logging: it logs every node, on any logger."""
    root, own = logging.getLogger(), logging.getLogger("onnxruntime.quantization")
    handlers, level = root.handlers[:], root.level
    own.setLevel(logging.ERROR)
    own.propagate = False
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
