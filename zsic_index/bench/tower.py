"""One vision tower by torch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zsic_index import encoders
from zsic_index.bench import checkpoints
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.embedding_arrays import Float32
from zsic_index.encoders import Pixels
from zsic_index.encoders.base import PIXEL_VALUES
from zsic_index.encoders.checkpoint import TransformersFiles
from zsic_index.encoders.onnx.export import UnitTower, export_graph
from zsic_index.encoders.onnx.fidelity import generate_probes
from zsic_index.encoders.onnx.files import GRAPH_FILE
from zsic_index.encoders.onnx.int8 import quantise_graph
from zsic_index.encoders.onnx.tower import OnnxTower
from zsic_index.encoders.runtime import check_installed
from zsic_index.encoders.transformers.encoder import TransformersEncoder
from zsic_index.errors import ModelError, first_line

logger = logging.getLogger("zsic_index")

_TOLERANCE = 1e-5
"""Largest difference from torch of a component of a float32 embedding."""

_MIN_COSINE = 0.99
"""Least cosine of an int8 embedding and torch's."""

Embed = Callable[[Sequence[Pixels]], Float32]


@dataclass(frozen=True, slots=True)
class Runner:
    """A runtime with the tower loaded.

    Attributes:
        name: name in the report.
        embed: function from B preprocessed images to (B, D) float32 unit-norm embeddings.
        is_exact: False if its weights are rounded.
    """

    name: str
    embed: Embed
    is_exact: bool = True


def run(
    *,
    batches: Sequence[int] = (1, 8, 32),
    model: str | None = None,
    size: str = checkpoints.DEFAULT_SIZE,
    compiled: bool = True,
    rounds: int = 3,
) -> Iterator[Comparison]:
    """Yield a comparison for each number of images in a batch; times are per image.

    Every runtime gets the same preprocessed images and returns unit-norm embeddings, which are
    checked against torch's first. OpenVINO reads the ONNX file; it takes part if it is installed.
    It and torch.compile prepare the tower for the batch size, before they are timed.

    Args:
        batches: numbers of images in a batch, B.
        model: checkpoint; by default a random CLIP.
        size: size of the random CLIP, one of ``checkpoints.VISION_SIZES``.
        compiled: whether torch.compile takes part, which takes a minute for each batch size.
        rounds: timed rounds.

    Raises:
        AssertionError: when a runtime's embeddings are not those of torch.
        ModelError: without the extra ``onnx``, or for a tower that cannot be exported.
    """
    check_installed()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        folder, description = checkpoints.get_checkpoint(model, workspace, size)
        checkpoint = encoders.resolve(folder)
        encoder, files = encoders.load(checkpoint, device="cpu"), checkpoint.files
        assert isinstance(encoder, TransformersEncoder), "find_folder refuses other formats"
        assert isinstance(files, TransformersFiles)
        exact, rounded = workspace / "float32", workspace / "int8"
        exact.mkdir()
        export_graph(encoder, files.folder, exact)
        runners = [
            Runner("torch", _embed_with(encoder)),
            Runner("ONNX Runtime", _embed_with(OnnxTower.load(exact))),
        ]
        rounded.mkdir()
        try:
            quantise_graph(exact, rounded)
            runners.append(
                Runner("ONNX Runtime, int8", _embed_with(OnnxTower.load(rounded)), is_exact=False)
            )
        except ModelError as error:
            logger.warning("without ONNX Runtime in int8: %s", error)
        images = [encoder.preprocess(image) for image in generate_probes(max(batches))]
        for batch in batches:
            pixels = images[:batch]
            peers = [*_compile_torch(encoder, pixels)] if compiled else []
            yield _time_batch(
                [runners[0], *peers, *runners[1:], *_compile_openvino(exact, pixels)],
                pixels,
                description,
                rounds,
            )


def check_embeddings_agree(runners: Sequence[Runner], pixels: Sequence[Pixels]) -> None:
    """Raise an AssertionError unless all runners embed images as the first one does."""
    expected = runners[0].embed(pixels)
    for runner in runners[1:]:
        actual = runner.embed(pixels)
        assert actual.shape == expected.shape, f"{runner.name}: {actual.shape}"
        if runner.is_exact:
            difference = float(np.abs(actual - expected).max())
            assert difference <= _TOLERANCE, f"{runner.name}: differs by {difference:.1e}"
        else:
            cosine = float(np.einsum("bd,bd->b", actual, expected).min())
            assert cosine > _MIN_COSINE, f"{runner.name}: cosine {cosine:.4f}"


def _time_batch(
    runners: Sequence[Runner], pixels: Sequence[Pixels], description: str, rounds: int
) -> Comparison:
    check_embeddings_agree(runners, pixels)
    return compare(
        f"vision tower, one image in a batch of {len(pixels)}, {description}",
        [
            Contender(runner.name, partial(runner.embed, pixels), share=len(pixels))
            for runner in runners
        ],
        rounds=rounds,
    )


def _embed_with(tower: encoders.VisionTower) -> Embed:
    """Return the function that embeds images with a tower of this package."""

    def embed(pixels: Sequence[Pixels]) -> Float32:
        return tower.encode_images(pixels).embeddings

    return embed


def _compile_torch(encoder: TransformersEncoder, pixels: Sequence[Pixels]) -> Iterator[Runner]:
    """Yield the tower compiled for a batch by torch.compile, if it can be."""

    def embed(pixels: Sequence[Pixels]) -> Float32:
        with torch.inference_mode():
            embeddings: Float32 = tower(torch.from_numpy(_stack(pixels))).numpy()
            return embeddings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.compiler.reset()
            tower = torch.compile(UnitTower(encoder).eval(), dynamic=False)
            embed(pixels)
    except Exception as error:
        # The compiler raises its own errors and those of the C++ compiler that it looks for.
        reason = first_line(error)
        logger.warning("without torch.compile, which needs a C++ compiler: %s", reason)
        return
    yield Runner("torch.compile", embed)


def _compile_openvino(folder: Path, pixels: Sequence[Pixels]) -> Iterator[Runner]:
    """Yield the ONNX tower compiled for a batch by OpenVINO, if it is installed."""
    if importlib.util.find_spec("openvino") is None:
        return
    import openvino

    core = openvino.Core()
    model = core.read_model(folder / GRAPH_FILE)
    model.reshape(list(_stack(pixels).shape))
    # On some processors its default is bfloat16.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    tower = core.compile_model(model, "CPU", settings)

    def embed(pixels: Sequence[Pixels]) -> Float32:
        embeddings: Float32 = tower(_stack(pixels))[0]
        return embeddings

    yield Runner("OpenVINO", embed)


def _stack(pixels: Sequence[Pixels]) -> Any:
    """Return the (B, 3, H, W) float32 input of B images."""
    return np.stack([image[PIXEL_VALUES] for image in pixels])
