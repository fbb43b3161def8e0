"""Metrics, by hand and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from zsic_index.calibration.truth import Truth
from zsic_index.errors import InputError
from zsic_index.evaluation import metrics
from zsic_index.evaluation.metrics import NO_NODE


def test_hits_within_the_first_k() -> None:
    truth = Truth.of(3, 9, [0, 0, 1, 2], [4, 5, 0, 8])
    rows = np.array([[1, 5, 4], [0, 1, 2], [1, 2, 3]])
    assert metrics.hits_within(rows, truth, 1).tolist() == [False, True, False]
    assert metrics.hits_within(rows, truth, 2).tolist() == [True, True, False]
    assert metrics.hits_within(rows, truth, 9).tolist() == [True, True, False]
    with pytest.raises(InputError, match="k is 0"):
        metrics.hits_within(rows, truth, 0)
    with pytest.raises(InputError, match="2 predictions for 3"):
        metrics.hits_within(rows[:2], truth, 1)


def test_accuracy_and_its_interval() -> None:
    found = metrics.accuracy(np.arange(1_000) < 700)
    assert (found.value, found.images) == (0.7, 1_000)
    # The normal approximation, 1.96 standard errors of 0.0145.
    assert (found.low, found.high) == pytest.approx((0.6716, 0.7284), abs=0.003)
    assert metrics.accuracy(np.arange(1_000) < 700) == found


def test_an_interval_is_what_resampling_gives() -> None:
    correct = np.arange(80) < 30
    rng = np.random.default_rng(1)
    drawn = [rng.choice(correct, 80).mean() for _ in range(10_000)]
    found = metrics.accuracy(correct)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(drawn, (0.025, 0.975))), abs=1.5 / 80
    )


def test_forty_of_forty_is_not_certainty() -> None:
    found = metrics.accuracy(np.ones(40, dtype=bool))
    assert (found.value, found.high) == (1, 1)
    assert found.low**40 == pytest.approx(0.05)
    none = metrics.accuracy(np.zeros(40, dtype=bool))
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(1 - found.low))
    with pytest.raises(InputError, match="no images"):
        metrics.accuracy(np.zeros(0, dtype=bool))


def test_accuracy_by_rank_leaves_out_null_ranks() -> None:
    true = np.array([[0, 5, NO_NODE], [0, NO_NODE, NO_NODE], [1, 6, NO_NODE], [1, 7, NO_NODE]])
    predicted = np.array([[0, 5, 9], [1, NO_NODE, 9], [1, NO_NODE, 9], [1, 5, 9]])
    found = metrics.accuracy_by_rank(predicted, true)
    assert [one and (one.value, one.images) for one in found] == [(0.75, 4), (1 / 3, 3), None]
    with pytest.raises(InputError, match="twice"):
        metrics.accuracy_by_rank(predicted[:, :2], true)


def brute_average_precision(scores: list[float], relevant: list[bool]) -> float:
    """Precision times recall gained, over distinct thresholds from the top."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [right for score, right in zip(scores, relevant, strict=True) if score >= threshold]
        recall = sum(taken) / sum(relevant)
        total += (recall - recall_before) * sum(taken) / len(taken)
        recall_before = recall
    return total


def test_average_precision_by_hand() -> None:
    scores = np.array([[0.9, 1], [0.8, 1], [0.7, 1], [0.6, 1]])
    relevant = np.array([[True, False], [False, True], [True, False], [False, False]])
    assert metrics.average_precision(scores, relevant).tolist() == [(1 + 2 / 3) / 2, 1 / 4]
    assert np.isnan(metrics.average_precision(scores, relevant & False)).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 5), st.integers(1, 8))
@settings(max_examples=60)
def test_average_precision_is_that_of_brute_force(seed: int, b: int, n: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(values, size=(b, n)).astype(np.float64)
    relevant = rng.random((b, n)) < 0.3
    for at, found in enumerate(metrics.average_precision(scores, relevant)):
        if not relevant[:, at].any():
            assert np.isnan(found)
        else:
            brute = brute_average_precision(scores[:, at].tolist(), relevant[:, at].tolist())
            assert found == pytest.approx(brute)


@pytest.mark.parametrize("block", [1, 7 * 30, 1 << 22])
@pytest.mark.parametrize("softmax", [False, True])
def test_mean_average_precision_in_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, block: int, softmax: bool
) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", block)
    matrix = rng.standard_normal((50, 8)).astype(np.float32)
    queries = rng.standard_normal((30, 8)).astype(np.float32)
    right = rng.random((30, 50)) < 0.03
    logits = (queries @ matrix.T).astype(np.float64) * 2
    partition = oracle.log_sum_exp(logits) if softmax else None
    scores = logits - partition[:, None] if partition is not None else logits
    brute = [
        brute_average_precision(scores[:, at].tolist(), right[:, at].tolist())
        for at in np.flatnonzero(right.any(axis=0))
    ]
    found = metrics.mean_average_precision(
        matrix, queries, Truth.of(30, 50, *np.nonzero(right)),
        logit_scale=2.0, log_partition=partition,
    )  # fmt: skip
    assert found == pytest.approx(np.mean(brute), rel=1e-6)


def test_f1_by_hand() -> None:
    truth = Truth.of(3, 9, [0, 0, 1, 2], [1, 2, 1, 3])
    rows = np.array([[1, 4], [1, 2], [7, 8]])
    chosen = np.array([[True, True], [True, True], [True, False]])
    found = metrics.f1(rows, chosen, truth)
    # Said 5, right 4, hits 2. Label 1: 2 of 2 and 2; label 2: said once, wrongly; label 3: never.
    assert found == metrics.F1(micro=4 / 9, macro=pytest.approx(1 / 3), labels=3)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_f1_is_that_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = rng.random((12, 9)) < 0.2
    right[0, 0] = True
    rows = np.argsort(rng.random((12, 9)), axis=1)[:, :6]
    chosen = rng.random((12, 6)) < 0.4
    said = np.zeros((12, 9), dtype=bool)
    said[np.nonzero(chosen)[0], rows[chosen]] = True
    found = metrics.f1(rows, chosen, Truth.of(12, 9, *np.nonzero(right)))
    hits, false, missed = said & right, said & ~right, ~said & right
    assert found.micro == pytest.approx(2 * hits.sum() / (2 * hits.sum() + (said ^ right).sum()))
    each = [
        2 * hits[:, at].sum() / (2 * hits[:, at].sum() + false[:, at].sum() + missed[:, at].sum())
        for at in np.flatnonzero(right.any(axis=0))
    ]
    assert found.macro == pytest.approx(np.mean(each))


def test_confusions_are_counted_most_frequent_first() -> None:
    true = np.array([5, 5, 5, 1, 1, 9, 9, 9, 9])
    predicted = np.array([2, 2, 5, 0, 3, 9, 4, 4, 4])
    assert metrics.confusions(true, predicted, 3) == [(9, 4, 3), (5, 2, 2), (1, 0, 1)]
    assert metrics.confusions(true, predicted, 99)[3:] == [(1, 3, 1)]
    assert metrics.confusions(true, true, 3) == []
