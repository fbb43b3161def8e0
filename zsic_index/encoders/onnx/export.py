"""Export of a loaded encoder's vision tower to ONNX."""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zsic_index.embedding_arrays import Float32
from zsic_index.encoders.base import PIXEL_VALUES, Encoder
from zsic_index.encoders.checkpoint import (
    Checkpoint,
    TransformersFiles,
)
from zsic_index.encoders.onnx.fidelity import (
    PROBES,
    bound_change,
    generate_probes,
    measure_differences,
)
from zsic_index.encoders.onnx.files import (
    DIFFERENCES_FILE,
    GRAPH_FILE,
    TowerFiles,
    TowerRecord,
    copy_settings,
    create_tower,
    describe_files,
    find_tower,
    write_record,
)
from zsic_index.encoders.onnx.tower import OnnxTower
from zsic_index.encoders.runtime import check_installed
from zsic_index.encoders.transformers.encoder import TransformersEncoder
from zsic_index.errors import ModelError, first_line

_OUTPUT = "image_embedding"
"""Not ``embedding``, which is the name of a value inside some towers."""

_EXAMPLE = Image.new("RGB", (8, 8))


class UnitTower(torch.nn.Module):
    """The vision tower, then the normalisation of its (B, D) output.

    Args:
        encoder: encoder in float32 on the CPU.
    """

    def __init__(self, encoder: TransformersEncoder) -> None:
        super().__init__()
        self.model = encoder.model
        self._run = encoder.image_features

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the (B, D) float32 unit-norm embeddings of B preprocessed images."""
        features = self._run(pixel_values=pixel_values).float()
        unit: torch.Tensor = features / features.norm(p=2, dim=-1, keepdim=True)
        return unit


def write_tower(
    folder: Path,
    fingerprint: str,
    encoder: Encoder,
    checkpoint: Checkpoint,
    labels: Float32,
    measured: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> TowerFiles:
    """Write the vision tower of a checkpoint, and measure it against the encoder.

    Args:
        folder: folder of the index files.
        fingerprint: encoder fingerprint of the indexes that it is for.
        encoder: the checkpoint's encoder, in float32 on the CPU.
        checkpoint: the checkpoint.
        labels: (R, D) float32 unit-norm label embeddings that it is measured with.
        measured: name and checksum of the index that has them.
        progress: called with (images compared, images to compare).

    Raises:
        ModelError: when the tower cannot be exported, or run by ONNX Runtime.
        StoreError: when the files cannot be written.
    """
    check_installed()
    files = checkpoint.files
    if not isinstance(encoder, TransformersEncoder) or not isinstance(files, TransformersFiles):
        raise ModelError(
            f"model {checkpoint.model_id}: ONNX towers are made from checkpoints in transformers' "
            "format only: use --runtime torch"
        )
    with create_tower(folder, fingerprint, "float32") as temporary:
        try:
            export_graph(encoder, files.folder, temporary)
        except ModelError as error:
            raise ModelError(f"model {checkpoint.model_id}: {error}") from error
        tower = OnnxTower.load(temporary)
        differences = measure_differences(
            map(tower.preprocess, generate_probes()),
            encoder.encode_images,
            tower.encode_images,
            None if progress is None else lambda done: progress(done, PROBES),
        )
        np.save(temporary / DIFFERENCES_FILE, differences)
        info = encoder.info
        record = TowerRecord(
            encoder_fingerprint=fingerprint,
            checkpoint_fingerprint=checkpoint.fingerprint,
            precision="float32",
            dim=info.dim,
            logit_scale=info.logit_scale,
            activation=info.activation,
            images=len(differences),
            measured=measured,
            change=bound_change(differences, labels, info.logit_scale, info.activation),
            agreement=None,
            versions=library_versions(),
            files=describe_files(temporary),
        )
        write_record(temporary, record)
    written = find_tower(folder, fingerprint, "float32")
    assert written is not None, "it has just been written"
    return written


def export_graph(encoder: TransformersEncoder, source: Path, folder: Path) -> None:
    """Write graph, weights and image settings of a vision tower to a folder.

    The batch size is free; the graph names no file or line of the exporting machine.

    Args:
        encoder: encoder in float32 on the CPU.
        source: folder of its checkpoint.
        folder: existing folder to write to.

    Raises:
        ModelError: when the tower has inputs other than pixels, or cannot be exported.
    """
    example = {
        name: torch.from_numpy(values) for name, values in encoder.preprocess(_EXAMPLE).items()
    }
    if set(example) != {PIXEL_VALUES}:
        raise ModelError(
            f"its vision tower takes {', '.join(sorted(example))}, not just {PIXEL_VALUES}: "
            "it runs with torch only"
        )
    pixels = torch.stack([example[PIXEL_VALUES]] * 2)
    try:
        with _quiet_export():
            program = torch.onnx.export(
                UnitTower(encoder).eval(),
                (pixels,),
                dynamo=True,
                input_names=[PIXEL_VALUES],
                output_names=[_OUTPUT],
                dynamic_shapes={PIXEL_VALUES: {0: torch.export.Dim("batch")}},
                verbose=False,
            )
    except Exception as error:
        # The exporter raises its own errors and any of those of the code that it traces.
        reason = first_line(error)
        raise ModelError(f"its vision tower cannot be exported to ONNX: {reason}") from error
    assert program is not None, "only the old exporter returns nothing"
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in [*program.model.graph.inputs, *program.model.graph.outputs]:
        value.metadata_props.clear()
    program.save(folder / GRAPH_FILE, external_data=True)
    copy_settings(source, folder)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that take part in an export."""
    names = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    return {name: importlib.metadata.version(name) for name in names}


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Silence the exporter and its optimiser, whose warnings are about their own parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
