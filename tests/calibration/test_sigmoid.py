"""Scale and bias of a sigmoid against brute force over all similarities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from tests.support.worlds import draw_world
from zsic_index.calibration import (
    fit_sigmoid,
)
from zsic_index.calibration.reliability import reliability
from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Float64
from zsic_index.errors import InputError


def sigmoid_nll(similarities: Float64, right: np.ndarray, scale: float, bias: float) -> float:
    return oracle.sigmoid_loss(similarities * scale + bias, right)


def test_sigmoid_finds_what_the_labels_were_drawn_from(rng: np.random.Generator) -> None:
    matrix, queries, _ = draw_world(rng, labels=2_000, images=500)
    similarities = oracle.similarities(queries, matrix)
    drawn = rng.random(similarities.shape) < oracle.sigmoid(similarities * 25 - 12)
    truth = Truth.of(500, 2_000, *np.nonzero(drawn))
    fit = fit_sigmoid(matrix, queries, truth, logit_scale=60.0, logit_bias=-20.0)

    assert (fit.scale, fit.bias) == pytest.approx((25, -12), rel=0.05)
    assert fit.nll_before == pytest.approx(sigmoid_nll(similarities, drawn, 60, -20), rel=1e-5)
    assert fit.nll == pytest.approx(sigmoid_nll(similarities, drawn, fit.scale, fit.bias), rel=1e-6)
    for scale, bias in ((1.002, 1), (0.998, 1), (1, 1.002), (1, 0.998)):
        assert sigmoid_nll(similarities, drawn, fit.scale * scale, fit.bias * bias) > fit.nll
    best = np.argsort(-similarities, axis=1)[:, :5]
    right = np.take_along_axis(drawn, best, axis=1).ravel()
    five = np.take_along_axis(similarities, best, axis=1).ravel()
    for scale, bias, ece in ((60, -20, fit.ece_before), (fit.scale, fit.bias, fit.ece)):
        found = oracle.sigmoid(five * scale + bias)
        assert ece == pytest.approx(reliability(found, right).error, abs=1e-4)
    assert fit.ece < fit.ece_before


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=25)
def test_sigmoid_is_the_minimum_of_brute_force(seed: int, biased: bool) -> None:
    rng = np.random.default_rng(seed)
    matrix, queries = (
        oracle.unit_rows(rng, 40, 6),
        oracle.unit_rows(rng, 30, 6),
    )
    bias = rng.normal(0, 0.3, 40).astype(np.float32) if biased else None
    similarities = oracle.similarities(queries, matrix)
    if bias is not None:
        similarities -= bias
    drawn = rng.random(similarities.shape) < oracle.sigmoid(similarities * 4 - 3)
    truth = Truth.of(30, 40, *np.nonzero(drawn))
    fit = fit_sigmoid(matrix, queries, truth, logit_scale=9.0, logit_bias=-9.0, label_bias=bias)
    logits = similarities * fit.scale + fit.bias
    # Both derivatives are zero: probabilities add up to the right pairs, and so do similarities.
    rest = oracle.sigmoid(logits) - drawn
    assert rest.sum() == pytest.approx(0, abs=2e-2)
    assert (rest * similarities).sum() == pytest.approx(0, abs=2e-2)


def test_sigmoid_refuses_what_cannot_be_fitted(rng: np.random.Generator) -> None:
    matrix = oracle.unit_rows(rng, 20, 8)
    numbers = {"logit_scale": 10.0, "logit_bias": -5.0}
    every = np.arange(20)
    with pytest.raises(InputError, match="harder"):
        fit_sigmoid(matrix, matrix, Truth.of(20, 20, every, every), **numbers)
    wrong = (-(matrix @ matrix.T)).argmax(axis=1)
    wrong[:4] = (wrong[:4] + 1) % 20
    with pytest.raises(InputError, match="not above 0"):
        fit_sigmoid(matrix, matrix, Truth.of(20, 20, every, wrong), **numbers)
    with pytest.raises(InputError, match="no image has a right label"):
        fit_sigmoid(matrix, matrix, Truth.of(20, 20, [], []), **numbers)
    with pytest.raises(InputError, match="19 images"):
        fit_sigmoid(matrix, matrix, Truth.of(19, 20, [0], [0]), **numbers)
