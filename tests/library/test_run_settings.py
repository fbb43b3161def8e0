"""Settings of a run, and the rules that follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.libraries import build
from zsic_index import LabelIndex
from zsic_index.calibration import Calibration, FittedOn, ScaleFit
from zsic_index.errors import InputError
from zsic_index.library.run_settings import RunSettings


def test_rules_do_not_change_their_index(tmp_path: Path) -> None:
    build(tmp_path)
    settings = RunSettings(roots=(str(tmp_path),), calibrated=True)
    with LabelIndex.open("things", keep_images=True) as index:
        with pytest.raises(InputError, match="has no calibration"):
            settings.rules(index)
        own_scale = index.searcher.logit_scale
        fit = ScaleFit(own_scale, own_scale / 2, 0.0, 0.0, 1.0, 0.9, 0.1, 0.05, 10)
        index.save_calibration(Calibration("softmax", fit, FittedOn(10, "digest", "2026-11-26")))
        rules = settings.rules(index)
        assert rules.index.searcher.logit_scale == own_scale / 2
        assert index.searcher.logit_scale == own_scale
        assert index.searcher.calibration is None
        plain = RunSettings(roots=(str(tmp_path),)).rules(rules.index)
        assert plain.index.searcher.logit_scale == own_scale
        assert plain.digest != rules.digest


def test_settings_come_back_from_the_store() -> None:
    settings = RunSettings(roots=("/photos",), exclude=("*.tif",), write="sidecar", limit=3)
    record = {"roots": ["/photos"], "exclude": ["*.tif"], "write": "sidecar", "limit": 3}
    assert RunSettings.from_record(record) == settings
