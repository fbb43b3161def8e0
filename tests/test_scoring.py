from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsic_index import scoring
from zsic_index.errors import EmbeddingError


def unit(rng: np.random.Generator, count: int, dim: int) -> scoring.Float32:
    return scoring.check_embeddings(rng.standard_normal((count, dim)))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 700),
    batch=st.integers(1, 9),
    dim=st.sampled_from([1, 3, 64]),
    top_k=st.integers(1, 12),
    block=st.sampled_from([64, 700, 1 << 18]),
    threads=st.integers(1, 4),
    scale=st.sampled_from([1.0, 14.3, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_scan_equals_the_full_matrix(
    count: int,
    batch: int,
    dim: int,
    top_k: int,
    block: int,
    threads: int,
    scale: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    matrix, queries = unit(rng, count, dim), unit(rng, batch, dim)
    found = scoring.scan(
        matrix,
        queries,
        top_k,
        logit_scale=scale,
        logit_bias=-2.5,
        threads=threads,
        block_elements=block,
    )
    full = np.einsum("bd,nd->bn", queries.astype(np.float64), matrix.astype(np.float64))
    order = np.argsort(-full, axis=1, kind="stable")[:, :top_k]
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(
        found.similarities, np.take_along_axis(full, order, axis=1), atol=1e-12
    )
    assert found.log_partition is not None
    np.testing.assert_allclose(
        found.log_partition, scoring.log_sum_exp(full * scale - 2.5), atol=2e-5
    )


def test_many_queries_are_taken_in_passes(rng: np.random.Generator) -> None:
    matrix, queries = unit(rng, 300, 8), unit(rng, 2 * scoring.QUERY_BATCH + 3, 8)
    together = scoring.scan(matrix, queries, 4, logit_scale=50.0)
    for row in (0, scoring.QUERY_BATCH, len(queries) - 1):
        alone = scoring.scan(matrix, queries[row : row + 1], 4, logit_scale=50.0)
        np.testing.assert_array_equal(together.rows[row], alone.rows[0])
        np.testing.assert_array_equal(together.similarities[row], alone.similarities[0])


def test_ties_go_to_the_lower_row() -> None:
    matrix = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (500, 1))
    matrix[37] = (0.0, 1.0)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    for threads in (1, 3):
        found = scoring.scan(matrix, query, 5, threads=threads, block_elements=64)
        assert found.rows.tolist() == [[0, 1, 2, 3, 4]]


def test_more_ties_than_candidates_at_the_border() -> None:
    """A better row after very many equal ones must not push out the lowest of them."""
    matrix = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (1_000, 1))
    matrix[990] = (1.0, 0.0)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    found = scoring.scan(matrix, query, 4, threads=2, block_elements=64)
    assert found.rows.tolist() == [[990, 0, 1, 2]]


def test_no_queries(rng: np.random.Generator) -> None:
    found = scoring.scan(unit(rng, 5, 3), np.empty((0, 3), np.float32), 2)
    assert found.rows.shape == (0, 2)


def test_without_partition(rng: np.random.Generator) -> None:
    assert scoring.scan(unit(rng, 5, 3), unit(rng, 2, 3), 2, partition=False).log_partition is None


def test_partition_survives_large_logits(rng: np.random.Generator) -> None:
    matrix, queries = unit(rng, 400, 16), unit(rng, 3, 16)
    found = scoring.scan(matrix, queries, 400, logit_scale=5_000.0)
    assert found.log_partition is not None
    probabilities = scoring.activate(found.similarities * 5_000.0, "softmax", found.log_partition)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


def test_softmax_and_sigmoid_at_the_ends() -> None:
    logits = np.array([[800.0, 0.0, -800.0]])
    assert scoring.activate(logits, "sigmoid", None).tolist() == [[1.0, 0.5, 0.0]]
    partition = scoring.log_sum_exp(logits)
    np.testing.assert_allclose(
        scoring.activate(logits, "softmax", partition), [[1.0, 0.0, 0.0]], atol=1e-15
    )


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 3), dtype=np.int64),
        np.ones((2, 2, 2)),
        np.zeros((1, 3)),
        np.array([[1.0, np.nan, 0.0]]),
        np.array([[1.0, np.inf, 0.0]]),
        np.array([["a", "b"]]),
        np.ones((2, 0)),
    ],
)
def test_embeddings_that_are_none(array: np.ndarray) -> None:
    with pytest.raises(EmbeddingError):
        scoring.check_embeddings(array)


def test_embeddings_of_another_dimension() -> None:
    with pytest.raises(EmbeddingError, match=r"4 dimensions.*3"):
        scoring.check_embeddings(np.ones((2, 4)), 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_embeddings_are_normalised(dtype: str) -> None:
    unit = scoring.check_embeddings(np.full((2, 4), 3, dtype=dtype))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, 0.5)


def test_one_embedding_is_a_batch_of_one() -> None:
    assert scoring.check_embeddings(np.ones(4)).shape == (1, 4)
