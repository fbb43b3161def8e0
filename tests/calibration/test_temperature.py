"""Temperature against brute force over all similarities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from tests.support.worlds import draw_world
from zsic_index.calibration import (
    fit_temperature,
)
from zsic_index.calibration.reliability import reliability
from zsic_index.embedding_arrays import Float64, Int64
from zsic_index.errors import EmbeddingError, InputError


def softmax_nll(similarities: Float64, targets: Int64, scale: float) -> float:
    return oracle.softmax_loss(similarities * scale, targets)


@pytest.mark.parametrize("start", [3.0, 30.0, 250.0])
def test_temperature_is_found_from_wherever_the_model_stands(
    rng: np.random.Generator, start: float
) -> None:
    matrix, queries, targets = draw_world(rng)
    fit = fit_temperature(matrix, queries, targets, logit_scale=start)
    similarities = oracle.similarities(queries, matrix)

    # 30 within its statistical error, and the brute-force minimum far more closely.
    assert fit.scale == pytest.approx(30, rel=0.1)
    grid = fit.scale * np.exp(np.linspace(-0.002, 0.002, 41))
    best = grid[np.argmin([softmax_nll(similarities, targets, scale) for scale in grid])]
    assert fit.scale == pytest.approx(best, rel=2e-4)

    for scale, nll, ece in (
        (start, fit.nll_before, fit.ece_before),
        (fit.scale, fit.nll, fit.ece),
    ):
        assert nll == pytest.approx(softmax_nll(similarities, targets, scale), rel=1e-5)
        probabilities = oracle.softmax(similarities * scale)
        right = probabilities.argmax(axis=1) == targets
        brute = reliability(probabilities.max(axis=1), right).error
        assert ece == pytest.approx(brute, abs=1e-4)
    assert (fit.scale_before, fit.bias_before, fit.bias, fit.images) == (start, 0, 0, 700)
    assert fit.nll <= fit.nll_before


def test_a_label_bias_is_part_of_the_fit(rng: np.random.Generator) -> None:
    matrix, queries, targets = draw_world(rng, labels=300)
    bias = rng.normal(0, 0.1, 300).astype(np.float32)
    fit = fit_temperature(matrix, queries, targets, logit_scale=10.0, label_bias=bias)
    similarities = oracle.similarities(queries, matrix) - bias
    assert fit.nll == pytest.approx(softmax_nll(similarities, targets, fit.scale), rel=1e-5)
    for scale in (fit.scale * 0.99, fit.scale * 1.01):
        assert softmax_nll(similarities, targets, scale) > fit.nll - 1e-7


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 30), st.integers(1, 4))
@settings(max_examples=40)
def test_temperature_is_a_minimum_or_an_error(seed: int, b: int, n: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, queries = (
        oracle.unit_rows(rng, n, dim),
        oracle.unit_rows(rng, b, dim),
    )
    targets = rng.integers(n, size=b)
    similarities = oracle.similarities(queries, matrix)
    try:
        fit = fit_temperature(matrix, queries, targets, logit_scale=20.0)
    except InputError:
        inside = [softmax_nll(similarities, targets, 20.0 * f) for f in np.geomspace(1 / 60, 60)]
        ends = [softmax_nll(similarities, targets, 20.0 * f) for f in (1 / 64, 64)]
        assert min(ends) <= min(inside) + 1e-6
        return
    # What float32 inner products can be off by, times the scale, of which there are two.
    rounding = 2 * fit.scale * (dim + 4) * 2.0**-24 + 1e-6
    assert fit.nll == pytest.approx(softmax_nll(similarities, targets, fit.scale), abs=rounding)
    for factor in (0.5, 0.9, 1.1, 2):
        assert softmax_nll(similarities, targets, fit.scale * factor) >= fit.nll - rounding


def test_images_that_cannot_tell_are_refused(rng: np.random.Generator) -> None:
    matrix = oracle.unit_rows(rng, 50, 16)
    with pytest.raises(InputError, match="harder"):
        fit_temperature(matrix, matrix, np.arange(50), logit_scale=100.0)
    with pytest.raises(InputError, match="check the labels"):
        fit_temperature(matrix, -matrix, np.arange(50), logit_scale=100.0)


def test_threads_and_batches_change_nothing_that_matters(rng: np.random.Generator) -> None:
    matrix, queries, targets = draw_world(rng, labels=2_500, images=600)
    one = fit_temperature(matrix, queries, targets, logit_scale=20.0, threads=1)
    assert fit_temperature(matrix, queries, targets, logit_scale=20.0, threads=3) == one


@pytest.mark.parametrize(
    ("targets", "scale", "message"),
    [
        ([0, 1], 1.0, "3 images but 2"),
        ([0, 1, 9], 1.0, "row 9"),
        ([0, 1, -1], 1.0, "row -1"),
        ([0.5, 1, 2], 1.0, "integers"),
        ([0, 1, 2], 0.0, "above 0"),
        ([0, 1, 2], float("nan"), "finite"),
    ],
)
def test_bad_input(targets: list[float], scale: float, message: str) -> None:
    matrix = oracle.normalised(np.eye(5, 4) + 0.1)
    with pytest.raises(InputError, match=message):
        fit_temperature(matrix, matrix[:3], np.array(targets), logit_scale=scale)


def test_bad_shapes() -> None:
    matrix = oracle.normalised(np.eye(5, 4) + 0.1)
    with pytest.raises(EmbeddingError, match="one model"):
        fit_temperature(matrix, matrix[:, :3], [0] * 5, logit_scale=1.0)
    with pytest.raises(EmbeddingError, match="at least one"):
        fit_temperature(matrix, matrix[:0], [], logit_scale=1.0)
    with pytest.raises(EmbeddingError, match="label_bias"):
        fit_temperature(
            matrix, matrix, [0] * 5, logit_scale=1.0, label_bias=np.zeros(3, dtype=np.float32)
        )
