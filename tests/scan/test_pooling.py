"""Labels with several names, by the best and by their mass, against plain float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from tests.support.oracle import unit_rows
from tests.support.worlds import draw_pooling
from zsic_index import calibration
from zsic_index.calibration import fit_hub_bias, fit_sigmoid, fit_temperature, pair_similarities
from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.errors import EmbeddingError
from zsic_index.evaluation import metrics
from zsic_index.scan.exact import scan
from zsic_index.scan.groups import Grouping
from zsic_index.scan.pooling import How, Pooling

HOWS = st.sampled_from(["max", "mass"])


def pooled(of_names: Float64, pooling: Pooling, scale: float) -> Float64:
    """Return the oracle's (B, N) similarities of labels from (B, R) of names."""
    names = [range(*edges) for edges in itertools.pairwise(pooling.starts.tolist())]
    return oracle.pooled(of_names, names, pooling.how, scale)


@settings(max_examples=80)
@given(
    labels=st.integers(1, 300),
    most=st.sampled_from([1, 3, 90]),
    how=HOWS,
    with_bias=st.booleans(),
    batch=st.integers(1, 9),
    top_k=st.integers(1, 12),
    block=st.sampled_from([64, 700, 1 << 18]),
    segment=st.sampled_from([64, 130, 1 << 16]),
    copies=st.sampled_from([1, 1, 30]),
    threads=st.integers(1, 4),
    scale=st.sampled_from([0.5, 14.3, 100.0, 3_000.0]),
    seed=st.integers(0, 2**31),
)
def test_a_scan_of_names_is_one_of_labels(
    labels: int,
    most: int,
    how: How,
    with_bias: bool,
    batch: int,
    top_k: int,
    block: int,
    segment: int,
    copies: int,
    threads: int,
    scale: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    pooling = draw_pooling(rng, labels, most, how)
    rows = int(pooling.starts[-1])
    matrix, queries = unit_rows(rng, rows, 12), unit_rows(rng, batch, 12)
    matrix = matrix[rng.integers(0, 1 + rows // copies, rows) % rows]
    bias = rng.normal(0, 0.1, labels).astype(np.float32) if with_bias else None
    group_of = np.sort(rng.integers(0, 5, labels))
    found = scan(
        matrix,
        queries,
        top_k,
        logit_scale=scale,
        logit_bias=-2.5,
        pooling=pooling,
        label_bias=bias,
        grouping=Grouping(group_of, 5, "sum"),
        threads=threads,
        block_elements=block,
        segment_rows=segment,
    )
    full = pooled(oracle.similarities(queries, matrix), pooling, scale)
    less = full if bias is None else full - bias
    logits = scale * less - 2.5
    # Labels of exactly the same rows are as good as each other to float64 as well.
    best = np.sort(less, axis=1)[:, ::-1][:, :top_k]
    at = found.rows
    np.testing.assert_allclose(np.take_along_axis(less, at, 1), best, atol=1e-12)
    assert all(len(set(line)) == len(line) for line in at.tolist())
    np.testing.assert_allclose(found.similarities, np.take_along_axis(full, at, 1), atol=1e-12)
    np.testing.assert_allclose(
        found.logits, np.take_along_axis(logits, at, 1), atol=1e-11 * max(1, scale)
    )
    assert found.log_partition is not None
    partition = oracle.log_sum_exp(logits)
    np.testing.assert_allclose(found.log_partition, partition, atol=3e-6 * max(1, scale / 100))
    right = oracle.of_nodes(
        oracle.softmax(logits), [np.flatnonzero(group_of == g) for g in range(5)]
    )
    np.testing.assert_allclose(found.groups, right, atol=1e-5 * max(1, scale / 100))


def test_the_mass_of_labels_is_that_of_all_names(rng: np.random.Generator) -> None:
    pooling = draw_pooling(rng, 3_000, 5, "mass")
    matrix, queries = unit_rows(rng, int(pooling.starts[-1]), 32), unit_rows(rng, 7, 32)
    pooled = scan(matrix, queries, 5, logit_scale=40.0, pooling=pooling)
    every = scan(matrix, queries, 5, logit_scale=40.0)
    np.testing.assert_allclose(pooled.log_partition, every.log_partition, atol=1e-6)


def test_ties_go_to_the_first_label_and_equal_ones_crowd(rng: np.random.Generator) -> None:
    for how in ("max", "mass"):
        pooling = Pooling(np.arange(0, 2_001, 2), how)  # type: ignore[arg-type]
        matrix = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (2_000, 1))
        matrix[1_801] = (1.0, 0.0)
        query = np.array([[1.0, 0.0]], dtype=np.float32)
        found = scan(
            matrix, query, 4, pooling=pooling, logit_scale=50.0, threads=2, block_elements=64
        )
        assert found.rows.tolist() == [[900, 0, 1, 2]], how


def test_names_of_single_labels_cost_no_copy(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((3, 6)).astype(np.float32)
    pooling = Pooling(np.array([0, 1, 2, 4, 5, 6]), "max")
    assert pooling.pool(logits[:, 4:], 3, 5).base is logits
    np.testing.assert_array_equal(pooling.pool(logits)[:, 2], logits[:, 2:4].max(axis=1))


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 9), st.integers(1, 30))
def test_parts_cover_all_labels_and_keep_to_their_size(
    seed: int, labels: int, most: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    pooling = draw_pooling(rng, labels, most, "max")
    first, last = sorted(rng.integers(0, labels + 1, 2).tolist())
    edges = pooling.edges(first, last, rows)
    assert (edges[0], edges[-1]) == (first, last)
    for low, high in itertools.pairwise(edges):
        assert high > low
        held = pooling.starts[high] - pooling.starts[low]
        assert held <= rows or high == low + 1
    chosen = rng.permutation(labels)[: rng.integers(1, labels + 1)]
    taken = pooling.take(chosen)
    assert taken.counts.tolist() == pooling.counts[chosen].tolist()
    label_of_row = np.repeat(np.arange(labels), pooling.counts)
    assert label_of_row[pooling.rows_of(chosen)].tolist() == [
        label for label, count in zip(chosen.tolist(), taken.counts.tolist(), strict=True)
        for _ in range(count)
    ]  # fmt: skip
    again = Pooling.of_rows(label_of_row * 7 + 3, "max")
    assert again.starts.tolist() == pooling.starts.tolist()
    longer = pooling.followed_by(3)
    assert longer.counts.tolist() == [*pooling.counts.tolist(), 1, 1, 1]


# What is fitted and measured


def world(
    rng: np.random.Generator, how: How, labels: int = 400, images: int = 500
) -> tuple[Pooling, Float32, Float32, Int64]:
    """Images whose right labels are drawn from the pooled softmax of scale 30."""
    pooling = draw_pooling(rng, labels, 4, how)
    matrix, queries = unit_rows(rng, int(pooling.starts[-1]), 24), unit_rows(rng, images, 24)
    logits = 30 * pooled(oracle.similarities(queries, matrix), pooling, 30.0)
    return pooling, matrix, queries, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("how", ["max", "mass"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_temperature_is_that_of_pooled_logits(
    rng: np.random.Generator, how: How, with_bias: bool
) -> None:
    pooling, matrix, queries, targets = world(rng, how)
    bias = rng.normal(0, 0.05, pooling.labels).astype(np.float32) if with_bias else None
    of_names = oracle.similarities(queries, matrix)

    def logits_at(scale: float) -> Float64:
        full = pooled(of_names, pooling, scale)
        return scale * (full if bias is None else full - bias)

    def nll(scale: float) -> float:
        return oracle.softmax_loss(logits_at(scale), targets)

    fit = fit_temperature(
        matrix, queries, targets, logit_scale=90.0, label_bias=bias, pooling=pooling
    )
    assert fit.nll_before == pytest.approx(nll(90.0), rel=1e-5)
    assert fit.nll == pytest.approx(nll(fit.scale), rel=1e-5)
    for factor in (0.97, 1.03, 0.5, 2.0):
        assert nll(fit.scale * factor) > fit.nll
    for scale, ece in ((90.0, fit.ece_before), (fit.scale, fit.ece)):
        probabilities = oracle.softmax(logits_at(scale))
        right = probabilities.argmax(axis=1) == targets
        found = calibration.temperature.reliability(probabilities.max(axis=1), right).error
        assert ece == pytest.approx(found, abs=1e-4)


def test_sigmoid_is_that_of_the_best_name(rng: np.random.Generator) -> None:
    pooling, matrix, queries, targets = world(rng, "max")
    truth = Truth.of(len(queries), pooling.labels, np.arange(len(queries)), targets)
    fit = fit_sigmoid(matrix, queries, truth, logit_scale=20.0, logit_bias=-5.0, pooling=pooling)
    full = pooled(oracle.similarities(queries, matrix), pooling, 1.0)

    def nll(scale: float, bias: float) -> float:
        return oracle.sigmoid_loss(scale * full + bias, targets[:, None] == np.arange(400))

    assert fit.nll == pytest.approx(nll(fit.scale, fit.bias), rel=1e-4)
    for scale, bias in ((1.05, 0.0), (0.95, 0.0), (1.0, 0.1), (1.0, -0.1)):
        assert nll(fit.scale * scale, fit.bias + bias) > nll(fit.scale, fit.bias)


@pytest.mark.parametrize("how", ["max", "mass"])
def test_pairs_hubs_and_precision_are_of_labels(rng: np.random.Generator, how: How) -> None:
    pooling, matrix, queries, targets = world(rng, how, labels=90, images=40)
    full = pooled(oracle.similarities(queries, matrix), pooling, 25.0)
    images = np.arange(40)
    found = pair_similarities(matrix, queries, images, targets, pooling=pooling, scale=25.0)
    np.testing.assert_allclose(found, full[images, targets], atol=1e-12)

    bias = fit_hub_bias(matrix, queries, 6, 0.4, pooling=pooling, logit_scale=25.0)
    raw = 0.4 * np.sort(full, axis=0)[-6:].mean(axis=0)
    np.testing.assert_allclose(bias.of(np.arange(90)), raw - raw.mean(), atol=1e-6)

    truth = Truth.of(40, 90, images, targets)
    partition = oracle.log_sum_exp(25.0 * full)
    mean = metrics.mean_average_precision(
        matrix, queries, truth, logit_scale=25.0, log_partition=partition, pooling=pooling
    )
    labels = np.unique(targets)
    relevant = targets[:, None] == labels
    scores = 25.0 * full[:, labels] - partition[:, None]
    assert mean == pytest.approx(metrics.average_precision(scores, relevant).mean(), abs=1e-6)


def test_rows_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    pooling = Pooling(np.array([0, 2, 3]), "max")
    with pytest.raises(EmbeddingError, match="pooled from 3 rows; there are 4"):
        fit_temperature(
            unit_rows(rng, 4, 5), unit_rows(rng, 2, 5), [0, 1], logit_scale=9.0, pooling=pooling
        )
    with pytest.raises(EmbeddingError, match="one number for each of 2 labels"):
        fit_temperature(
            unit_rows(rng, 3, 5), unit_rows(rng, 2, 5), [0, 1], logit_scale=9.0, pooling=pooling,
            label_bias=np.zeros(3, dtype=np.float32),
        )  # fmt: skip
