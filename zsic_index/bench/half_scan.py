"""The scan of half-precision embeddings against FAISS's, for as many labels as memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from zsic_index.bench.scan import BATCHES, LOGIT_SCALE, TOP_K, sizes, unit
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.index_files import half
from zsic_index.scan.exact import scan


def run(
    *, labels: int = 100_000, dim: int = 512, batches: Sequence[int] = BATCHES, rounds: int = 3
) -> Iterator[Comparison]:
    """Yield a comparison for each batch size.

    Both contenders read the same memory: the codes of an ``IndexScalarQuantizer`` of 16-bit floats.
    FAISS gives the top-k alone; ours with the log-partition. Neither looks at float32 again: there
    is no room for it at the sizes that this is for.

    Args:
        labels: N; 2 * D bytes each.
        dim: D.
        batches: the numbers of image embeddings, B.
        rounds: turns that count.
    """
    rng = np.random.default_rng(0)
    index, halves = half.empty(labels, dim)
    start = 0
    for rows in sizes(labels):
        halves[start : start + rows] = unit(rng, rows, dim)
        start += rows
    queries = unit(rng, max(batches), dim)
    for batch in batches:
        some = queries[:batch]
        yield compare(
            f"{labels:,} labels x {dim} in half precision, {batch} images, top {TOP_K}",
            [
                Contender(
                    "FAISS IndexScalarQuantizer, top-k alone",
                    partial(index.search, some, TOP_K),
                ),
                Contender(
                    "zsic-index, with partition",
                    partial(scan, halves, some, TOP_K, logit_scale=LOGIT_SCALE),
                ),
            ],
            rounds=rounds,
        )
