"""Thresholds that keep a precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsic_index.calibration import (
    NEVER,
    fit_thresholds,
)
from zsic_index.embedding_arrays import Float64
from zsic_index.errors import InputError


def wilson_low(hits: int, number: int, z: float = 1.6448536269514722) -> float:
    p = hits / number
    half = z * np.sqrt(p * (1 - p) / number + z * z / (4 * number * number))
    return float((p + z * z / (2 * number) - half) / (1 + z * z / number))


def brute_threshold(probabilities: Float64, correct: np.ndarray, precision: float) -> float:
    good = [
        t
        for t in set(probabilities.tolist())
        if wilson_low(correct[probabilities >= t].sum(), (probabilities >= t).sum()) >= precision
    ]
    return min(good, default=NEVER)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.8]))
@settings(max_examples=60)
def test_thresholds_are_those_of_brute_force(seed: int, precision: float) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice([3, 7, 8, 100], 200)
    probabilities = rng.integers(0, 30, 200) / 30  # many ties
    correct = rng.random(200) < np.where(ids == 8, 0.2, probabilities)
    found = fit_thresholds(ids, probabilities, correct, precision)
    overall = brute_threshold(probabilities, correct, precision)
    assert found.overall == overall
    for label in (3, 7, 8, 100, 55):
        own = ids == label
        expected = brute_threshold(probabilities[own], correct[own], precision)
        if expected == NEVER:
            above = own & (probabilities >= overall)
            hits, number = correct[above].sum(), above.sum()
            against = number > 0 and 1 - wilson_low(number - hits, number) < precision
            expected = NEVER if against else overall
        assert found.of(np.array([label]))[0] == expected
    assert found.answers == 200


def test_few_answers_are_not_enough() -> None:
    high = np.full(24, 0.9)
    assert fit_thresholds(np.zeros(24), high, high > 0, 0.9).overall == NEVER
    high = np.full(25, 0.9)
    assert fit_thresholds(np.zeros(25), high, high > 0, 0.9).overall == 0.9
    empty = fit_thresholds(np.zeros(0), np.zeros(0), np.zeros(0, bool), 0.9)
    assert empty.overall == NEVER


def test_a_bad_label_does_not_hide_behind_the_others() -> None:
    ids = np.repeat([1, 2], [300, 20])
    correct = ids == 1
    found = fit_thresholds(ids, np.full(320, 0.9), correct, 0.9)
    assert found.overall == 0.9
    assert found.of(np.array([[1, 2], [3, 1]])).tolist() == [[0.9, NEVER], [0.9, 0.9]]


def test_wanted_precision_is_kept_on_new_answers() -> None:
    """Of 200 fits on 300 answers each, how many fall short of 80 % where they accept."""
    rng = np.random.default_rng(5)
    grid = np.linspace(0, 1, 100_001)
    short = 0
    for _ in range(200):
        probabilities = rng.random(300)
        correct = rng.random(300) < probabilities**2
        threshold = fit_thresholds(np.zeros(300), probabilities, correct, 0.8).overall
        if threshold < NEVER:
            short += (grid[grid >= threshold] ** 2).mean() < 0.8
    # The bound is for one threshold and the lowest of several is taken: 5 % may become more.
    assert short <= 0.1 * 200


@pytest.mark.parametrize(
    ("precision", "confidence", "message"), [(0, 0.9, "precision"), (0.9, 1, "confidence")]
)
def test_thresholds_refuse(precision: float, confidence: float, message: str) -> None:
    one = np.ones(3)
    with pytest.raises(InputError, match=message):
        fit_thresholds(one, one, one > 0, precision, confidence=confidence)
