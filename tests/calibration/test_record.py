"""Calibrations as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.worlds import draw_world
from zsic_index import calibration
from zsic_index.calibration import (
    NEVER,
    Calibration,
    FittedOn,
    fit_hub_bias,
    fit_temperature,
    fit_thresholds,
)
from zsic_index.calibration.conformal import ConformalLimit
from zsic_index.errors import InputError


@pytest.fixture
def whole(rng: np.random.Generator) -> Calibration:
    matrix, queries, targets = draw_world(rng, labels=80, images=300)
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
