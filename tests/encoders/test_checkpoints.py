"""Checkpoints in the forms that lie on the Hub, against the stock pipeline."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import variants
from tests.support.stock import PICTURES, load, probabilities, stock, stock_probabilities
from tests.support.variants import Variant
from zsic_index.errors import ModelError


@pytest.fixture
def make(checkpoints: Callable[[str], Path], tmp_path: Path) -> Callable[[Variant], Path]:
    """Copy a checkpoint, and change the copy."""

    def make(variant: Variant) -> Path:
        folder = tmp_path / "checkpoint"
        shutil.copytree(checkpoints(variant.maker), folder)
        for change in variant.changes:
            change(folder)
        return folder

    return make


@pytest.mark.parametrize("name", variants.OPENED)
def test_probabilities_are_the_stock_pipelines(make: Callable[[Variant], Path], name: str) -> None:
    folder = make(variants.OPENED[name])
    expected = stock_probabilities(stock(folder))
    np.testing.assert_allclose(probabilities(load(folder)), expected, rtol=0, atol=1e-5)
    assert expected.max() > 2 * expected.min(), "the labels are all alike"


@pytest.mark.parametrize("name", [name for name in variants.OPENED if name.startswith("half")])
def test_towers_in_float16_are_the_stock_pipelines(
    make: Callable[[Variant], Path], name: str
) -> None:
    """The stock pipeline rounds after the towers too; its own towers show what they give."""
    folder = make(variants.OPENED[name])
    reference, encoder = stock(folder, "float16"), load(folder, "float16")
    np.testing.assert_allclose(
        probabilities(encoder), stock_probabilities(reference), rtol=0, atol=5e-3
    )
    pixels = reference.image_processor(images=PICTURES, return_tensors="pt").to(torch.float16)
    with torch.no_grad():
        features = reference.model.get_image_features(**pixels).pooler_output.float()
    expected = torch.nn.functional.normalize(features, dim=-1)
    embeddings = encoder.encode_images([encoder.preprocess(i) for i in PICTURES]).embeddings
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", variants.REFUSED)
def test_refused_in_a_line(make: Callable[[Variant], Path], name: str) -> None:
    variant, message = variants.REFUSED[name]
    folder = make(variant)
    with pytest.raises(ModelError, match=message) as refusal:
        load(folder)
    text = str(refusal.value).replace(str(folder), "FOLDER")
    assert text.startswith("model FOLDER: ")
    assert "\n" not in text
    assert len(text) < 350
