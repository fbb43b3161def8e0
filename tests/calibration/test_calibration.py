"""Calibration against brute force over all similarities, and what its records promise."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from zsic_index import calibration
from zsic_index.calibration import (
    NEVER,
    Calibration,
    FittedOn,
    fit_hub_bias,
    fit_sigmoid,
    fit_temperature,
    fit_thresholds,
)
from zsic_index.calibration.conformal import ConformalLimit
from zsic_index.calibration.reliability import reliability
from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.errors import EmbeddingError, InputError
from zsic_index.scan.exact import scan


def unit(array: np.ndarray) -> Float32:
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


def world(
    rng: np.random.Generator, labels: int = 3_000, images: int = 700, dim: int = 32
) -> tuple[Float32, Float32, Int64]:
    """Labels, and images whose right labels are drawn from a softmax of scale 30."""
    matrix = unit(rng.standard_normal((labels, dim)))
    queries = unit(rng.standard_normal((images, dim)))
    logits = 30.0 * (queries @ matrix.T).astype(np.float64)
    targets = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return matrix, queries, targets


def softmax_nll(similarities: Float64, targets: Int64, scale: float) -> float:
    return oracle.softmax_loss(similarities * scale, targets)


# Temperature


@pytest.mark.parametrize("start", [3.0, 30.0, 250.0])
def test_temperature_is_found_from_wherever_the_model_stands(
    rng: np.random.Generator, start: float
) -> None:
    matrix, queries, targets = world(rng)
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
    matrix, queries, targets = world(rng, labels=300)
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
    matrix, queries = unit(rng.standard_normal((n, dim))), unit(rng.standard_normal((b, dim)))
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
    matrix = unit(rng.standard_normal((50, 16)))
    with pytest.raises(InputError, match="harder"):
        fit_temperature(matrix, matrix, np.arange(50), logit_scale=100.0)
    with pytest.raises(InputError, match="check the labels"):
        fit_temperature(matrix, -matrix, np.arange(50), logit_scale=100.0)


def test_threads_and_batches_change_nothing_that_matters(rng: np.random.Generator) -> None:
    matrix, queries, targets = world(rng, labels=2_500, images=600)
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
    matrix = unit(np.eye(5, 4) + 0.1)
    with pytest.raises(InputError, match=message):
        fit_temperature(matrix, matrix[:3], np.array(targets), logit_scale=scale)


def test_bad_shapes() -> None:
    matrix = unit(np.eye(5, 4) + 0.1)
    with pytest.raises(EmbeddingError, match="one model"):
        fit_temperature(matrix, matrix[:, :3], [0] * 5, logit_scale=1.0)
    with pytest.raises(EmbeddingError, match="at least one"):
        fit_temperature(matrix, matrix[:0], [], logit_scale=1.0)
    with pytest.raises(EmbeddingError, match="label_bias"):
        fit_temperature(
            matrix, matrix, [0] * 5, logit_scale=1.0, label_bias=np.zeros(3, dtype=np.float32)
        )


# Sigmoid


def sigmoid_nll(similarities: Float64, right: np.ndarray, scale: float, bias: float) -> float:
    return oracle.sigmoid_loss(similarities * scale + bias, right)


def test_sigmoid_finds_what_the_labels_were_drawn_from(rng: np.random.Generator) -> None:
    matrix, queries, _ = world(rng, labels=2_000, images=500)
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
    matrix, queries = unit(rng.standard_normal((40, 6))), unit(rng.standard_normal((30, 6)))
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
    matrix = unit(rng.standard_normal((20, 8)))
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


# Thresholds


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


# Hubs


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0, 2))
@settings(max_examples=25)
def test_hub_bias_is_the_mean_of_the_nearest(seed: int, k: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    matrix, references = unit(rng.standard_normal((60, 5))), unit(rng.standard_normal((9, 5)))
    ids = rng.permutation(1_000)[:60]
    found = fit_hub_bias(matrix, references, k, alpha, label_ids=ids)
    nearest = np.sort(matrix.astype(np.float64) @ references.T.astype(np.float64))[:, -k:]
    raw = alpha * nearest.mean(axis=1)
    np.testing.assert_allclose(found.of(ids), raw - raw.mean(), atol=1e-6)
    assert found.of(np.array([1_001])) == 0


def test_hub_bias_over_several_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, references = unit(rng.standard_normal((700, 8))), unit(rng.standard_normal((90, 8)))
    whole = fit_hub_bias(matrix, references, 12, 0.5)
    monkeypatch.setattr(calibration.hubs, "REFERENCE_BLOCK", 7)
    np.testing.assert_allclose(
        fit_hub_bias(matrix, references, 12, 0.5).bias, whole.bias, atol=1e-7
    )


def test_a_hub_loses_its_lead(rng: np.random.Generator) -> None:
    """One label that is near to every image comes out first; with the bias it does not."""
    common = np.eye(1, 64)[0]
    images = unit(common + 0.1 * rng.standard_normal((400, 64)))
    matrix = unit(images[:200] - 0.85 * images[:200] @ common[:, None] * common)
    matrix = np.concatenate([matrix, common[None].astype(np.float32)])
    assert ((images[:200] @ matrix.T).argmax(axis=1) == 200).mean() > 0.5
    bias = fit_hub_bias(matrix, images[200:], 100, 1.0).of(np.arange(201))
    best = (images[:200] @ matrix.T - bias).argmax(axis=1)
    assert (best == np.arange(200)).mean() > 0.9


def test_a_scan_takes_the_bias_as_it_is_meant(rng: np.random.Generator) -> None:
    matrix, queries, _ = world(rng, labels=500, images=20)
    bias = rng.normal(0, 0.2, 500).astype(np.float32)
    found = scan(matrix, queries, 7, logit_scale=20.0, logit_bias=-3.0, label_bias=bias)
    plain = oracle.similarities(queries, matrix)
    order = np.argsort(bias - plain, axis=1)[:, :7]
    assert (found.rows == order).all()
    of_best = np.take_along_axis(plain, order, 1)
    np.testing.assert_allclose(found.similarities, of_best, atol=1e-12)
    np.testing.assert_allclose(found.logits, 20 * (of_best - bias[order]) - 3, atol=1e-11)
    logits = 20 * (plain - bias) - 3
    np.testing.assert_allclose(found.log_partition, oracle.log_sum_exp(logits), atol=1e-6)


@pytest.mark.parametrize(
    ("k", "alpha", "ids", "message"),
    [
        (0, 1.0, None, "k is 0"),
        (6, 1.0, None, "5 reference"),
        (1, -1.0, None, "alpha"),
        (1, 1.0, [1] * 5, "distinct"),
    ],
)
def test_hub_bias_refuses(k: int, alpha: float, ids: list[int] | None, message: str) -> None:
    matrix = unit(np.eye(5, 4) + 0.1)
    with pytest.raises(InputError, match=message):
        fit_hub_bias(matrix, matrix, k, alpha, label_ids=ids)


# The record


@pytest.fixture
def whole(rng: np.random.Generator) -> Calibration:
    matrix, queries, targets = world(rng, labels=80, images=300)
    ids = np.arange(80)[::-1] * 3
    thresholds = fit_thresholds(
        np.repeat([6, 9, 12], 40), np.tile(rng.random(40), 3), np.arange(120) < 70, 0.8
    )
    assert NEVER in thresholds.of(ids)
    return Calibration(
        "softmax",
        fit_temperature(matrix, queries, targets, logit_scale=10.0),
        FittedOn(300, calibration.digest(queries, targets), "2026-01-31"),
        hubs=fit_hub_bias(matrix, queries, 5, 0.7, label_ids=ids),
        thresholds=thresholds,
        conformal=ConformalLimit(0.9, 0.0123, 300),
    )


def test_json_round_trip(whole: Calibration) -> None:
    text = whole.to_json()
    read = Calibration.from_json(text)
    assert read.to_json() == text
    assert (read.fit, read.fitted_on, read.conformal) == (
        whole.fit, whole.fitted_on, whole.conformal,
    )  # fmt: skip
    ids = np.arange(240)
    assert read.hubs is not None
    assert whole.hubs is not None
    assert (read.hubs.of(ids) == whole.hubs.of(ids)).all()
    assert read.thresholds is not None
    assert whole.thresholds is not None
    assert (read.thresholds.of(ids) == whole.thresholds.of(ids)).all()


def test_a_bias_may_stand_alone(whole: Calibration) -> None:
    alone = Calibration("softmax", None, whole.fitted_on, hubs=whole.hubs)
    read = Calibration.from_json(alone.to_json())
    assert read.fit is None
    assert read.to_json() == alone.to_json()
    assert read.hubs is not None
    assert whole.hubs is not None
    assert read.hubs.of(np.array([[0, 3], [6, -1]])).dtype == np.float32
    assert (read.hubs.bias == whole.hubs.bias).all()


def test_what_is_no_calibration_is_refused(whole: Calibration) -> None:
    value = json.loads(whole.to_json())
    for broken in (
        "",
        "[]",
        "{}",
        json.dumps(value | {"version": 2}),
        json.dumps(value | {"activation": "none"}),
        json.dumps(value | {"fit": {"scale": 1}}),
        json.dumps(value | {"fit": value["fit"] | {"scale": "1"}}),
        json.dumps(value | {"fit": value["fit"] | {"scale": float("nan")}}),
        json.dumps(value | {"hubs": {}}),
        json.dumps(value | {"hubs": value["hubs"] | {"bias": "AAAA"}}),
        json.dumps(value | {"thresholds": value["thresholds"] | {"label_ids": [1, 2]}}),
    ):
        with pytest.raises(InputError, match="calibrat"):
            Calibration.from_json(broken)


def test_digest_tells_inputs_apart() -> None:
    one = np.arange(6.0)
    digests = {
        calibration.digest(one),
        calibration.digest(one.reshape(2, 3)),
        calibration.digest(one.astype(np.float32)),
        calibration.digest(one, one),
        calibration.digest(one[::-1]),
        calibration.digest(one, "a"),
        calibration.digest(one, "a", ""),
        calibration.digest(np.zeros(0)),
    }
    assert len(digests) == 8
    assert calibration.digest(one[::2]) == calibration.digest(one[::2].copy())
