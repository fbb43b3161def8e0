"""Conformal sets: what they promise, on data of which everything is known."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import oracle
from zsic_index.calibration.conformal import ConformalLimit, fit_conformal
from zsic_index.embedding_arrays import Float64
from zsic_index.errors import InputError


def drawn(rng: np.random.Generator, images: int, labels: int = 60) -> tuple[Float64, Float64]:
    """Probabilities that are far too sure of themselves, and those of the right labels."""
    logits = rng.standard_normal((images, labels)) * 2
    right = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    probabilities = oracle.softmax(logits * 3)
    return probabilities, probabilities[np.arange(images), right]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("images", [39, 400])
def test_coverage_is_kept_on_average_over_calibrations(coverage: float, images: int) -> None:
    """From coverage to coverage + 1 / (n + 1), over 400 calibrations of 400 new images each."""
    rng = np.random.default_rng(3)
    found = [
        (drawn(rng, 400)[1] >= fit_conformal(drawn(rng, images)[1], coverage).limit).mean()
        for _ in range(400)
    ]
    error = np.std(found) / len(found) ** 0.5
    assert coverage - 3 * error <= np.mean(found) <= coverage + 1 / (images + 1) + 3 * error


@given(st.lists(st.sampled_from([i / 8 for i in range(9)]), min_size=1, max_size=60),
       st.sampled_from([0.5, 0.75, 0.9, 0.95]))  # fmt: skip
def test_the_limit_is_the_corrected_quantile(right: list[float], coverage: float) -> None:
    """So many of the n + 1 places are at or above the limit, and no higher limit has them."""
    n, wanted = len(right), Fraction(str(coverage))
    try:
        limit = fit_conformal(np.array(right), coverage).limit
    except InputError:
        assert (n + 1) * (1 - wanted) < 1
        return
    inside = sum(p >= limit for p in right)
    assert inside >= (n + 1) * wanted or limit < 1e-300
    assert sum(p > limit for p in right) < (n + 1) * wanted


def test_rounding_does_not_cost_an_image() -> None:
    """0.1 of 9 + 1 is exactly one image, though 1 - 0.9 is a little less than 0.1."""
    assert fit_conformal(np.arange(1, 10) / 10, 0.9).limit == 0.1
    with pytest.raises(InputError, match=r"8 images are too few.*at least 9"):
        fit_conformal(np.arange(1, 9) / 10, 0.9)


def test_sets_of_the_most_probable_labels_are_those_of_all(rng: np.random.Generator) -> None:
    probabilities, right = drawn(rng, 300)
    limit = fit_conformal(right, 0.9)
    ordered = -np.sort(-probabilities, axis=1)
    whole = limit.sets(ordered, np.zeros(300))
    assert (whole.sizes == (probabilities >= limit.limit).sum(axis=1)).all()
    assert whole.complete.all()
    assert whole.sizes.max() <= limit.largest_set
    for k in (1, 2, 5, 20):
        found = limit.sets(ordered[:, :k], 1 - ordered[:, :k].sum(axis=1))
        assert (found.sizes == np.minimum(whole.sizes, k)).all()
        # It may fail to prove a set complete, but never calls one complete that is not.
        assert (whole.sizes[found.complete] <= k).all()
        assert found.complete[whole.sizes < k].all()


def test_completeness() -> None:
    limit = ConformalLimit(0.9, 0.2, 100)
    probabilities = np.array([[0.5, 0.3], [0.7, 0.2], [0.9, 0.05], [0.1, 0.1]])
    remaining = np.array([0.2, 0.1, 0.05, 0.8])
    found = limit.sets(probabilities, remaining)
    assert found.sizes.tolist() == [2, 2, 1, 0]
    assert found.complete.tolist() == [False, True, True, True]
    # A sigmoid's other labels may be as probable as the last one.
    assert limit.sets(probabilities).complete.tolist() == [False, False, True, True]
    assert limit.largest_set == 5


def test_equal_probabilities_are_all_in() -> None:
    limit = fit_conformal(np.full(20, 0.25), 0.9)
    assert limit.sets(np.full((1, 4), 0.25), np.zeros(1)).sizes.tolist() == [4]


def test_a_limit_of_nothing_lets_everything_in() -> None:
    limit = fit_conformal(np.zeros(20), 0.9)
    found = limit.sets(np.array([[0.5, 0.25, 0.25]]), np.zeros(1))
    assert found.sizes.tolist() == [3]
    assert limit.largest_set > 10**9


@pytest.mark.parametrize(
    ("right", "coverage", "message"),
    [
        ([0.5] * 20, 0.0, "coverage"),
        ([0.5] * 20, 1.0, "coverage"),
        ([0.5] * 20, float("nan"), "coverage"),
        ([float("nan")] * 20, 0.9, r"\[0, 1\]"),
        ([1.5] * 20, 0.9, r"\[0, 1\]"),
        ([[0.5]] * 20, 0.9, "shape"),
        ([], 0.9, "0 images"),
    ],
)
def test_bad_input(right: list[float], coverage: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_conformal(np.array(right), coverage)
