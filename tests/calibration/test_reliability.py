"""Reliability: bins of probabilities and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsic_index.calibration.reliability import Binning, reliability
from zsic_index.errors import InputError

BINNINGS: list[Binning] = ["equal-width", "equal-mass"]


def test_reliability_by_hand() -> None:
    probabilities = np.array([0.05, 0.1, 0.95, 1.0, 1.0, 0.5])
    correct = np.array([False, True, True, True, False, True])
    found = reliability(probabilities, correct, bins=2)
    low, high = found.bins
    assert (low.low, low.high, low.answers, low.accuracy) == (0, 0.5, 2, 0.5)
    assert (high.low, high.high, high.answers, high.accuracy) == (0.5, 1, 4, 0.75)
    assert (low.probability, high.probability) == pytest.approx((0.075, 0.8625))
    assert found.error == pytest.approx((2 * 0.425 + 4 * 0.1125) / 6)


@given(st.integers(0, 2**32 - 1), st.sampled_from(BINNINGS), st.integers(1, 20))
@settings(max_examples=80)
def test_reliability_adds_up(seed: int, binning: Binning, bins: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.choice(rng.random(12) ** 2, 100)
    correct = rng.random(100) < 0.5
    found = reliability(probabilities, correct, bins=bins, binning=binning)
    order = rng.permutation(100)
    again = reliability(probabilities[order], correct[order], bins=bins, binning=binning)
    assert again.error == pytest.approx(found.error)
    assert [one.answers for one in again.bins] == [one.answers for one in found.bins]
    assert len(found.bins) <= bins
    assert sum(one.answers for one in found.bins) == found.answers == 100
    error = 0.0
    for one in found.bins:
        last = one is found.bins[-1]
        inside = (probabilities >= one.low) & (
            (probabilities <= one.high) if last else (probabilities < one.high)
        )
        assert inside.sum() == one.answers
        assert one.accuracy == pytest.approx(correct[inside].mean())
        error += abs(correct[inside].sum() - probabilities[inside].sum()) / 100
    assert found.error == pytest.approx(error)


def test_equal_mass_bins_hold_about_as_many() -> None:
    probabilities = np.random.default_rng(0).random(1_500) ** 4
    found = reliability(probabilities, probabilities > 2, binning="equal-mass")
    assert [one.answers for one in found.bins] == [100] * 15


@pytest.mark.parametrize("binning", BINNINGS)
def test_perfect_probabilities_have_no_error(binning: Binning) -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.random(200_000)
    found = reliability(probabilities, rng.random(200_000) < probabilities, binning=binning)
    assert found.error < 0.01
    one = reliability(np.ones(5), np.ones(5, dtype=bool), binning=binning)
    assert (one.error, len(one.bins)) == (0, 1)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [([1.2], "1.2"), ([float("nan")], "nan"), ([], "no answers"), ([[0.1]], "shape")],
)
def test_reliability_refuses(probabilities: list[float], message: str) -> None:
    array = np.array(probabilities)
    with pytest.raises(InputError, match=message):
        reliability(array, np.zeros(array.shape, dtype=bool))
