"""Vision towers that ONNX Runtime runs on the CPU, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from zsic_index.encoders.base import PIXEL_VALUES, EncodedImages, Pixels, Preprocessor
from zsic_index.encoders.image_transform import load_preprocessor
from zsic_index.encoders.onnx.files import GRAPH_FILE
from zsic_index.errors import ImageError, ModelError, first_line
from zsic_index.parallel import available_cores

_ONLY_ERRORS = 3
"""Severity from which ONNX Runtime logs."""


class OnnxTower:
    """The vision tower of a checkpoint, as far as images need an Encoder.

    Args:
        session: session with one input and one output, (B, D) unit-norm embeddings.
        preprocessor: function from an RGB image to the tower's input.
    """

    device_type = "cpu"

    def __init__(self, session: Any, preprocessor: Preprocessor) -> None:
        self._session = session
        self._preprocessor = preprocessor

    @classmethod
    def load(cls, folder: Path) -> OnnxTower:
        """Load a tower from its folder.

        Raises:
            ModelError: when it cannot be loaded.
        """
        try:
            preprocessor = load_preprocessor(folder)
        except Exception as error:
            raise _explain(folder, error) from error
        return cls(open_session(folder), preprocessor)

    @property
    def image_size(self) -> int:
        """Side of the tower's input in pixels."""
        return self._preprocessor.image_size

    def preprocess(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into inputs of the vision tower; see Encoder."""
        return self._preprocessor(image)

    def encode_images(self, images: Sequence[Pixels]) -> EncodedImages:
        """Embed B preprocessed images; see Encoder."""
        pixels = np.stack([image[PIXEL_VALUES] for image in images])
        (embeddings,) = self._session.run(None, {PIXEL_VALUES: pixels})
        finite = np.isfinite(embeddings).all(axis=1)
        refused = {
            int(row): ImageError("its embedding is not finite in ONNX Runtime: use --runtime torch")
            for row in np.flatnonzero(~finite)
        }
        return EncodedImages(embeddings[finite], refused)


def open_session(folder: Path) -> Any:
    """Return an ONNX Runtime session of the tower in a folder.

    Raises:
        ModelError: when ONNX Runtime cannot run it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    # Threads that wait in a loop take the cores from those that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ONLY_ERRORS
    try:
        return onnxruntime.InferenceSession(
            str(folder / GRAPH_FILE), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # Classes of an extension module that derive from RuntimeError or Exception.
        raise _explain(folder, error) from error


def _explain(folder: Path, error: Exception) -> ModelError:
    reason = first_line(error)
    return ModelError(
        f"ONNX tower {folder} cannot be loaded: {reason}: write it again with "
        "'zsic-index onnx write NAME', or use --runtime torch"
    )
