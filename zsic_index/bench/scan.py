"""The exact scan, compared with FAISS, a bare matrix product and reading the matrix."""

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

    The first contender, FAISS's ``IndexFlatIP``, computes the top-k alone; ``LabelIndex.score``
    computes top-k, log-partition, probabilities and labels. Some of its answers are checked
    against float64 before any timing.

    Args:
        labels: number of labels, N.
        dim: dimensions, D.
        batches: numbers of image embeddings, B.
        rounds: timed rounds.
        checked: number of answers to check.

    Raises:
        AssertionError: for a wrong answer.
    """
    rng = np.random.default_rng(0)
    queries = random_units(rng, max(batches), dim)
    with (
        tempfile.TemporaryDirectory() as temporary,
        LabelIndex.from_embeddings(
            [f"label {number}" for number in range(labels)],
            np.concatenate([random_units(rng, rows, dim) for rows in block_sizes(labels)]),
            logit_scale=LOGIT_SCALE,
            name="bench",
            store=Path(temporary) / "store.db",
        ) as index,
    ):
        check_scores(index, queries[:checked])
        for batch in batches:
            yield compare(
                f"{labels:,} labels x {dim}, {batch} images, top {TOP_K}",
                _contenders(index, queries[:batch]),
                rounds=rounds,
            )


def check_scores(index: LabelIndex, queries: Float32) -> None:
    """Check the top-k similarities and the log-partition of answers against float64."""
    wide = queries.astype(np.float64)
    exact = np.concatenate(
        [index.embeddings[start : start + _BLOCK].astype(np.float64) @ wide.T
         for start in range(0, len(index), _BLOCK)]
    ).T  # fmt: skip
    top = exact.max(axis=1) * LOGIT_SCALE
    partition = top + np.log(np.exp(exact * LOGIT_SCALE - top[:, None]).sum(axis=1))
    for row, predictions in enumerate(index.score(queries, top_k=TOP_K)):
        best = np.sort(exact[row])[::-1][:TOP_K]
        similarities = np.array([prediction.similarity for prediction in predictions])
        assert np.abs(best - similarities).max() < 1e-6, "top-k differs from float64"
        logit, probability = predictions[0].logit, predictions[0].probability
        error = abs(logit - np.log(probability) - partition[row])
        assert error < 1e-5, f"log-partition is off by {error}"


def _contenders(index: LabelIndex, queries: Float32) -> list[Contender]:
    matrix = index.embeddings
    flat = faiss.IndexFlatIP(matrix.shape[1])
    flat.add(matrix)
    out = np.empty((len(queries), _BLOCK), dtype=np.float32)
    with np.errstate(all="ignore"):
        tensor, tensor_queries = torch.from_numpy(matrix.copy()), torch.from_numpy(queries)

    def numpy_product() -> None:
        for start in range(0, len(matrix), _BLOCK):
            block = matrix[start : start + _BLOCK]
            np.matmul(queries, block.T, out=out[:, : len(block)])

    def torch_product() -> None:
        for start in range(0, len(matrix), _BLOCK):
            torch.mm(tensor_queries, tensor[start : start + _BLOCK].T)

    return [
        Contender("FAISS IndexFlatIP, top-k alone", lambda: flat.search(queries, TOP_K)),
        Contender("zsic-index, with partition", lambda: index.score(queries, top_k=TOP_K)),
        Contender("bare product, NumPy", numpy_product),
        Contender("bare product, torch", torch_product),
        Contender("reading the matrix", _reader(matrix)),
    ]


def _reader(matrix: Float32) -> Callable[[], None]:
    """Return a function that reads the whole matrix with one thread per core."""
    words = matrix.reshape(-1).view(np.uint32)
    cores = available_cores()
    bounds = [len(words) * core // cores for core in range(cores + 1)]

    def read(core: int) -> None:
        for start in range(bounds[core], bounds[core + 1], 1 << 20):
            words[start : min(start + (1 << 20), bounds[core + 1])].max()

    def run() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(read, range(cores)))

    return run


def random_units(rng: np.random.Generator, count: int, dim: int) -> Float32:
    """Return (count, dim) float32 random vectors of norm 1."""
    vectors = rng.standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def block_sizes(count: int) -> list[int]:
    """Return the number of rows of each block of ``count`` rows."""
    return [min(_BLOCK, count - start) for start in range(0, count, _BLOCK)]
