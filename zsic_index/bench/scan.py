"""The scan against FAISS's, against a bare matrix product, and against reading the matrix."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import torch

from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.embedding_arrays import Float32
from zsic_index.label_index import LabelIndex
from zsic_index.parallel import available_cores

BATCHES = (1, 8, 64, 256)

TOP_K = 10

LOGIT_SCALE = 100.0

_BLOCK = 1 << 16


def run(
    *,
    labels: int = 100_000,
    dim: int = 512,
    batches: Sequence[int] = BATCHES,
    rounds: int = 5,
    checked: int = 4,
) -> Iterator[Comparison]:
    """Yield a comparison for each batch size.

    The first contender is ``IndexFlatIP``, for the top-k alone. Ours is ``LabelIndex.score``, all
    of it: top-k, log-partition, probabilities and labels. Before it is timed, ``checked`` answers
    are compared with float64.

    Args:
        labels: N.
        dim: D.
        batches: the numbers of image embeddings, B.
        rounds: turns that count.
        checked: answers that are compared.

    Raises:
        AssertionError: when an answer is wrong.
    """
    rng = np.random.default_rng(0)
    queries = unit(rng, max(batches), dim)
    with (
        tempfile.TemporaryDirectory() as room,
        LabelIndex.from_embeddings(
            [f"label {number}" for number in range(labels)],
            np.concatenate([unit(rng, rows, dim) for rows in sizes(labels)]),
            logit_scale=LOGIT_SCALE,
            name="bench",
            store=Path(room) / "store.db",
        ) as index,
    ):
        check(index, queries[:checked])
        for batch in batches:
            yield compare(
                f"{labels:,} labels x {dim}, {batch} images, top {TOP_K}",
                _contenders(index, queries[:batch]),
                rounds=rounds,
            )


def check(index: LabelIndex, queries: Float32) -> None:
    """Compare answers with float64: the same rows, but for ties, and the same log-partition."""
    wide = queries.astype(np.float64)
    exact = np.concatenate(
        [index.embeddings[at : at + _BLOCK].astype(np.float64) @ wide.T
         for at in range(0, len(index), _BLOCK)]
    ).T  # fmt: skip
    top = exact.max(axis=1) * LOGIT_SCALE
    partition = top + np.log(np.exp(exact * LOGIT_SCALE - top[:, None]).sum(axis=1))
    for row, predictions in enumerate(index.score(queries, top_k=TOP_K)):
        best = np.sort(exact[row])[::-1][:TOP_K]
        found = np.array([prediction.similarity for prediction in predictions])
        assert np.abs(best - found).max() < 1e-6, "top-k differs from float64"
        logit, probability = predictions[0].logit, predictions[0].probability
        off = abs(logit - np.log(probability) - partition[row])
        assert off < 1e-5, f"log-partition is off by {off}"


def _contenders(index: LabelIndex, queries: Float32) -> list[Contender]:
    matrix = index.embeddings
    flat = faiss.IndexFlatIP(matrix.shape[1])
    flat.add(matrix)
    out = np.empty((len(queries), _BLOCK), dtype=np.float32)
    with np.errstate(all="ignore"):
        tensor, tensor_queries = torch.from_numpy(matrix.copy()), torch.from_numpy(queries)

    def numpy_product() -> None:
        for at in range(0, len(matrix), _BLOCK):
            block = matrix[at : at + _BLOCK]
            np.matmul(queries, block.T, out=out[:, : len(block)])

    def torch_product() -> None:
        for at in range(0, len(matrix), _BLOCK):
            torch.mm(tensor_queries, tensor[at : at + _BLOCK].T)

    return [
        Contender("FAISS IndexFlatIP, top-k alone", lambda: flat.search(queries, TOP_K)),
        Contender("zsic-index, with partition", lambda: index.score(queries, top_k=TOP_K)),
        Contender("bare product, NumPy", numpy_product),
        Contender("bare product, torch", torch_product),
        Contender("reading the matrix", _reader(matrix)),
    ]


def _reader(matrix: Float32) -> Callable[[], None]:
    """Return what reads the whole matrix with as many threads as there are cores."""
    words = matrix.reshape(-1).view(np.uint32)
    cores = available_cores()
    bounds = [len(words) * core // cores for core in range(cores + 1)]

    def read(core: int) -> None:
        for at in range(bounds[core], bounds[core + 1], 1 << 20):
            words[at : min(at + (1 << 20), bounds[core + 1])].max()

    def run() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(read, range(cores)))

    return run


def unit(rng: np.random.Generator, count: int, dim: int) -> Float32:
    """Return (count, dim) float32 random vectors of norm 1."""
    vectors = rng.standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def sizes(count: int) -> list[int]:
    """Return how many rows each block has."""
    return [min(_BLOCK, count - at) for at in range(0, count, _BLOCK)]
