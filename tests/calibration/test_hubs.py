"""The bias against hubs, as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from tests.support.worlds import draw_world
from zsic_index import calibration
from zsic_index.calibration import (
    fit_hub_bias,
)
from zsic_index.errors import InputError
from zsic_index.scan.exact import scan


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0, 2))
@settings(max_examples=25)
def test_hub_bias_is_the_mean_of_the_nearest(seed: int, k: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    matrix, references = (
        oracle.unit_rows(rng, 60, 5),
        oracle.unit_rows(rng, 9, 5),
    )
    ids = rng.permutation(1_000)[:60]
    found = fit_hub_bias(matrix, references, k, alpha, label_ids=ids)
    nearest = np.sort(matrix.astype(np.float64) @ references.T.astype(np.float64))[:, -k:]
    raw = alpha * nearest.mean(axis=1)
    np.testing.assert_allclose(found.of(ids), raw - raw.mean(), atol=1e-6)
    assert found.of(np.array([1_001])) == 0


def test_hub_bias_over_several_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, references = (
        oracle.unit_rows(rng, 700, 8),
        oracle.unit_rows(rng, 90, 8),
    )
    whole = fit_hub_bias(matrix, references, 12, 0.5)
    monkeypatch.setattr(calibration.hubs, "REFERENCE_BLOCK", 7)
    np.testing.assert_allclose(
        fit_hub_bias(matrix, references, 12, 0.5).bias, whole.bias, atol=1e-7
    )


def test_a_hub_loses_its_lead(rng: np.random.Generator) -> None:
    """One label that is near to every image comes out first; with the bias it does not."""
    common = np.eye(1, 64)[0]
    images = oracle.normalised(common + 0.1 * rng.standard_normal((400, 64)))
    matrix = oracle.normalised(images[:200] - 0.85 * images[:200] @ common[:, None] * common)
    matrix = np.concatenate([matrix, common[None].astype(np.float32)])
    assert ((images[:200] @ matrix.T).argmax(axis=1) == 200).mean() > 0.5
    bias = fit_hub_bias(matrix, images[200:], 100, 1.0).of(np.arange(201))
    best = (images[:200] @ matrix.T - bias).argmax(axis=1)
    assert (best == np.arange(200)).mean() > 0.9


def test_a_scan_takes_the_bias_as_it_is_meant(rng: np.random.Generator) -> None:
    matrix, queries, _ = draw_world(rng, labels=500, images=20)
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
    matrix = oracle.normalised(np.eye(5, 4) + 0.1)
    with pytest.raises(InputError, match=message):
        fit_hub_bias(matrix, matrix, k, alpha, label_ids=ids)
