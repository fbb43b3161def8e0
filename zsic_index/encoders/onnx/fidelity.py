"""Comparison of an ONNX tower's embeddings with those of the tower that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from zsic_index.embedding_arrays import Float32
from zsic_index.encoders.base import EncodedImages, Pixels
from zsic_index.errors import ModelError
from zsic_index.parallel import batched
from zsic_index.records import Activation

PROBES = 200
"""Number of generated images that differences are measured with."""

_BATCH = 8
_ROWS = 65_536
"""Rows of label embeddings that are compared at a time."""

_SIDES = (24, 640)
"""Least and greatest side of a generated image in pixels."""

EncodeImages = Callable[[Sequence[Pixels]], EncodedImages]


def generate_probes(count: int = PROBES) -> Iterator[Image.Image]:
    """Yield RGB images of random shapes, colours and detail, the same ones in every run."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        # From flat colours to noise: the same few random pixels, drawn large.
        detail = rng.integers(1, 64, 2)
        width, height = (int(side) for side in rng.integers(*_SIDES, 2))
        field = rng.integers(0, 256, (*detail, 3), dtype=np.uint8)
        yield Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)


def measure_differences(
    pixels: Iterable[Pixels],
    reference: EncodeImages,
    tower: EncodeImages,
    progress: Callable[[int], None] | None = None,
) -> Float32:
    """Return the (B, D) float32 differences of a tower's embeddings from the reference's.

    Raises:
        ModelError: when either embedding of an image is not finite.
    """
    blocks = []
    done = 0
    for batch in batched(pixels, _BATCH):
        expected, actual = reference(batch), tower(batch)
        if expected.refused or actual.refused:
            error = next(iter((expected.refused | actual.refused).values()))
            raise ModelError(f"ONNX tower: an image cannot be compared: {error}")
        blocks.append(actual.embeddings - expected.embeddings)
        done += len(batch)
        if progress is not None:
            progress(done)
    return np.concatenate(blocks)


def bound_change(
    differences: Float32, labels: Float32, logit_scale: float, activation: Activation
) -> float:
    """Return a bound on the change of probabilities that differences of embeddings cause.

    It holds for every subset of the labels and for sums of their probabilities. Each logit of an
    image moves by the logit scale times the inner product of the image's difference and a label.
    A sigmoid moves by at most a quarter of that. A softmax does not change if all logits move
    alike, and moves by at most a quarter of the distance between the largest and the smallest move.

    Args:
        differences: (B, D) float32 differences of image embeddings.
        labels: (R, D) float32 unit-norm label embeddings.
        logit_scale: multiplier of similarities.
        activation: function from logits to probabilities.
    """
    transposed = np.ascontiguousarray(differences.T)
    highest, lowest = (np.full(len(differences), sign * -np.inf) for sign in (1, -1))
    for start in range(0, len(labels), _ROWS):
        moves = labels[start : start + _ROWS] @ transposed
        highest = np.maximum(highest, moves.max(axis=0))
        lowest = np.minimum(lowest, moves.min(axis=0))
    moved = highest - lowest if activation == "softmax" else np.maximum(highest, -lowest)
    return float(logit_scale / 4 * moved.max())
