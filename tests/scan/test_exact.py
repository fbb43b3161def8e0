"""The exact scan against the full float64 matrix, however the work is cut."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from tests.support.oracle import unit_rows
from zsic_index.scan.exact import QUERY_BATCH, scan
from zsic_index.scan.probabilities import activate


@settings(max_examples=60)
@given(
    count=st.integers(1, 700),
    batch=st.integers(1, 9),
    dim=st.sampled_from([1, 3, 64]),
    top_k=st.integers(1, 12),
    block=st.sampled_from([64, 700, 1 << 18]),
    segment=st.sampled_from([64, 130, 1 << 16]),
    copies=st.sampled_from([1, 1, 30]),
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
    segment: int,
    copies: int,
    threads: int,
    scale: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    matrix, queries = unit_rows(rng, count, dim), unit_rows(rng, batch, dim)
    matrix = matrix[rng.integers(0, 1 + count // copies, count) % count]
    found = scan(
        matrix,
        queries,
        top_k,
        logit_scale=scale,
        logit_bias=-2.5,
        threads=threads,
        block_elements=block,
        segment_rows=segment,
    )
    full = oracle.similarities(queries, matrix)
    order = oracle.best(full, top_k)
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.similarities, oracle.at(full, order), atol=1e-12)
    partition = oracle.log_sum_exp(full * scale - 2.5)
    np.testing.assert_allclose(found.log_partition, partition, atol=2e-5)


def test_many_queries_are_taken_in_passes(rng: np.random.Generator) -> None:
    matrix, queries = unit_rows(rng, 300, 8), unit_rows(rng, 2 * QUERY_BATCH + 3, 8)
    together = scan(matrix, queries, 4, logit_scale=50.0)
    for row in (0, QUERY_BATCH, len(queries) - 1):
        alone = scan(matrix, queries[row : row + 1], 4, logit_scale=50.0)
        np.testing.assert_array_equal(together.rows[row], alone.rows[0])
        np.testing.assert_array_equal(together.similarities[row], alone.similarities[0])


def test_ties_go_to_the_lower_row() -> None:
    matrix = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (500, 1))
    matrix[37] = (0.0, 1.0)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    for threads in (1, 3):
        found = scan(matrix, query, 5, threads=threads, block_elements=64)
        assert found.rows.tolist() == [[0, 1, 2, 3, 4]]


def test_more_ties_than_candidates_at_the_border() -> None:
    """A better row after very many equal ones must not push out the lowest of them."""
    matrix = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (1_000, 1))
    matrix[990] = (1.0, 0.0)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    found = scan(matrix, query, 4, threads=2, block_elements=64)
    assert found.rows.tolist() == [[990, 0, 1, 2]]


def test_no_queries(rng: np.random.Generator) -> None:
    found = scan(unit_rows(rng, 5, 3), np.empty((0, 3), np.float32), 2)
    assert found.rows.shape == (0, 2)


def test_without_partition(rng: np.random.Generator) -> None:
    assert (
        scan(unit_rows(rng, 5, 3), unit_rows(rng, 2, 3), 2, partition=False).log_partition is None
    )


def test_partition_survives_large_logits(rng: np.random.Generator) -> None:
    matrix, queries = unit_rows(rng, 400, 16), unit_rows(rng, 3, 16)
    found = scan(matrix, queries, 400, logit_scale=5_000.0)
    assert found.log_partition is not None
    probabilities = activate(found.similarities * 5_000.0, "softmax", found.log_partition)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


def test_threads_change_nothing_at_all(rng: np.random.Generator) -> None:
    matrix, queries = unit_rows(rng, 20_000, 32), unit_rows(rng, 5, 32)
    one, *others = [
        scan(matrix, queries, 7, logit_scale=80.0, threads=threads, segment_rows=1_500)
        for threads in (1, 2, 3, 8)
    ]
    for other in others:
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.similarities, other.similarities)
        np.testing.assert_array_equal(one.log_partition, other.log_partition)


@pytest.mark.parametrize("batch", [1, 2, 8, 64, 300])
@pytest.mark.parametrize("block", [4_000, 1 << 17, 1 << 22])
def test_batches_and_blocks_change_no_row(rng: np.random.Generator, batch: int, block: int) -> None:
    matrix, queries = unit_rows(rng, 20_000, 64), unit_rows(rng, 300, 64)
    whole = scan(matrix, queries, 12, logit_scale=100.0)
    parts = [
        scan(matrix, queries[at : at + batch], 12, logit_scale=100.0, block_elements=block)
        for at in range(0, 300, batch)
    ]
    np.testing.assert_array_equal(whole.rows, np.concatenate([p.rows for p in parts]))
    np.testing.assert_array_equal(
        whole.similarities, np.concatenate([p.similarities for p in parts])
    )
    found = np.concatenate([part.log_partition for part in parts if part.log_partition is not None])
    np.testing.assert_allclose(found, whole.log_partition, atol=1e-7)


def test_log_partition_is_near_float64(rng: np.random.Generator) -> None:
    matrix, queries = unit_rows(rng, 200_000, 64), unit_rows(rng, 9, 64)
    full = oracle.similarities(queries, matrix)
    for scale in (10.0, 100.0, 1_000.0):
        found = scan(matrix, queries, 10, logit_scale=scale).log_partition
        assert found is not None
        np.testing.assert_allclose(found, oracle.log_sum_exp(full * scale), atol=1e-6)


def test_rows_that_float32_cannot_tell_apart(rng: np.random.Generator) -> None:
    """A thousand rows around one value: only float64 knows which are the best."""
    centre = unit_rows(rng, 1, 48)[0].astype(np.float64)
    nudges = rng.standard_normal((1_000, 48)) * 3e-8
    matrix = np.concatenate([unit_rows(rng, 3_000, 48), (centre + nudges).astype(np.float32)])
    matrix = matrix[rng.permutation(len(matrix))]
    query = centre.astype(np.float32)[None]
    (exact,) = oracle.similarities(query, matrix)
    (expected,) = oracle.best(exact[None], 20)
    variants: list[dict[str, Any]] = [
        {},
        {"block_elements": 999},
        {"segment_rows": 100, "threads": 3},
    ]
    for options in variants:
        found = scan(matrix, query, 20, **options)
        np.testing.assert_array_equal(found.rows[0], expected)
        np.testing.assert_array_equal(found.similarities[0], exact[expected])


def test_every_row_asked_for(rng: np.random.Generator) -> None:
    matrix, queries = unit_rows(rng, 5_000, 16), unit_rows(rng, 2, 16)
    found = scan(matrix, queries, 9_999, logit_scale=50.0)
    assert [sorted(line) for line in found.rows.tolist()] == [list(range(5_000))] * 2
    probabilities = activate(found.similarities * 50.0, "softmax", found.log_partition)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-9)


def test_what_is_held_does_not_grow_with_the_rows(rng: np.random.Generator) -> None:
    queries = unit_rows(rng, 64, 16)
    peaks = []
    for count in (100_000, 400_000):
        matrix = unit_rows(rng, count, 16)
        tracemalloc.start()
        scan(matrix, queries, 10, logit_scale=50.0, threads=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # What two threads hold at their worst moment depends on how they meet: four times the rows
    # may not take one and a half times the memory, and neither takes a third of the similarities.
    assert peaks[1] < 1.5 * peaks[0] < 1.5 * 64 * 100_000 * 4 / 3
