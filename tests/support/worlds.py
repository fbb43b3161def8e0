"""Random embeddings whose right labels are drawn from a known model, and random names."""

from __future__ import annotations

import numpy as np

from tests.support.oracle import similarities, unit_rows
from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.scan.pooling import How, Pooling


def draw_world(
    rng: np.random.Generator, labels: int = 3_000, images: int = 700, dim: int = 32
) -> tuple[Float32, Float32, Int64]:
    """Draw labels, images, and the images' right labels from a softmax of scale 30."""
    matrix, queries = unit_rows(rng, labels, dim), unit_rows(rng, images, dim)
    logits = 30.0 * similarities(queries, matrix)
    return matrix, queries, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def draw_pooling(rng: np.random.Generator, labels: int, most: int, how: How) -> Pooling:
    """Draw up to ``most`` names for a third of the labels; the others have one."""
    counts = np.where(rng.random(labels) < 1 / 3, rng.integers(1, most + 1, labels), 1)
    return Pooling(np.append(0, np.cumsum(counts)), how)
