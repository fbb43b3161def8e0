"""The half-precision scan compared with FAISS's, for as many labels as fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from zsic_index.bench.scan import BATCHES, LOGIT_SCALE, TOP_K, block_sizes, random_units
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.index_files import half_precision
from zsic_index.scan.exact import scan


def run(
    *, labels: int = 100_000, dim: int = 512, batches: Sequence[int] = BATCHES, rounds: int = 3
) -> Iterator[Comparison]:
    """Yield a comparison for each batch size.

    Both contenders read the same memory, the codes of an ``IndexScalarQuantizer`` of 16-bit floats.
    FAISS computes the top-k alone, zsic-index the log-partition as well. Neither re-scores in
    float32, which would not fit into memory at the sizes that this is for.

    Args:
        labels: number of labels, N, of 2 * D bytes each.
        dim: dimensions, D.
        batches: numbers of image embeddings, B.
        rounds: timed rounds.
    """
    rng = np.random.default_rng(0)
    index, halves = half_precision.allocate(labels, dim)
    start = 0
    for rows in block_sizes(labels):
        halves[start : start + rows] = random_units(rng, rows, dim)
        start += rows
    queries = random_units(rng, max(batches), dim)
    for batch in batches:
        yield compare(
            f"{labels:,} labels x {dim} in half precision, {batch} images, top {TOP_K}",
            [
                Contender(
                    "FAISS IndexScalarQuantizer, top-k alone",
                    partial(index.search, queries[:batch], TOP_K),
                ),
                Contender(
                    "zsic-index, with partition",
                    partial(scan, halves, queries[:batch], TOP_K, logit_scale=LOGIT_SCALE),
                ),
            ],
            rounds=rounds,
        )
