"""The probabilities of transformers' own pipeline, in the same process.

The reference is given the same files and does all of its own work: opening, preprocessing,
tokenising, both towers, softmax or sigmoid. ``parity.py`` has the matrix of all families; here it
runs in full when asked for (``-m slow``), and for two families always.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from tests.images.test_opening import CASES
from tests.support import models
from tests.support.pictures import picture
from tests.tools import parity
from zsic_index import LabelIndex, builtin, taxonomy
from zsic_index.records import Dtype, Prediction

pytestmark = pytest.mark.usefixtures("ready_store")

TOLERANCE = parity.TOLERANCE["float32"]

MODELS = ("clip", "siglip", "builtin:clip", "builtin:siglip")

TEMPLATES = ("This is a photo of {}.", "{}", "a drawing of one {}!")


@cache
def reference(model: str) -> Callable[..., Any]:
    folder = builtin.model_path(model) if model.startswith("builtin:") else model
    return pipeline(
        "zero-shot-image-classification", model=str(folder), dtype=torch.float32, device="cpu"
    )


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("builtin:"):
        return str(request.param)
    return str(request.getfixturevalue(f"{request.param}_folder"))


def words(count: int) -> list[str]:
    """Distinct labels that the built-in models know, those of the sample images first."""
    known = [*builtin.sample_labels().values(), *taxonomy.read(builtin.emoji_labels()).labels]
    return list(dict.fromkeys(known))[:count]


@dataclass(frozen=True)
class Compared:
    """How far two answers for one image are apart.

    Attributes:
        worst: the largest |Δp| over all labels.
        spread: the largest probability.
    """

    worst: float
    spread: float


def compare(expected: list[dict[str, Any]], found: list[Prediction], labels: list[str]) -> Compared:
    """Hold the order and every probability against the reference's."""
    assert sorted(p.label for p in found) == sorted(labels)
    assert len(expected) == len(found)
    wanted = {entry["label"]: entry["score"] for entry in expected}
    # Where the reference itself cannot tell two labels apart in float32, either order is its order.
    for mine, theirs in zip(found, expected, strict=True):
        if mine.label != theirs["label"]:
            assert wanted[mine.label] == pytest.approx(theirs["score"], rel=parity.TIE)
    return Compared(
        worst=max(abs(wanted[mine.label] - mine.probability) for mine in found),
        spread=found[0].probability,
    )


def images_for(model: str) -> dict[str, bytes]:
    """Files of every kind; for the built-in models also pictures that they know."""
    if not model.startswith("builtin:"):
        return CASES
    return {path.name: path.read_bytes() for path in builtin.samples()[:4]} | CASES


def worst_of(model: str, cases: dict[str, bytes], labels: list[str], template: str) -> Compared:
    with LabelIndex.build(labels, model=model, name="parity", templates=template) as index:
        answers = index.classify(list(cases.values()), top_k=len(labels))
    worst, spread = 0.0, 0.0
    for data, found in zip(cases.values(), answers, strict=True):
        expected = reference(model)(
            Image.open(io.BytesIO(data)), candidate_labels=labels, hypothesis_template=template
        )
        compared = compare(expected, found, labels)
        worst, spread = max(worst, compared.worst), max(spread, compared.spread)
    what = f"{len(cases)} images, {len(labels)} labels, {template!r}"
    print(f"\n| {Path(model).name:<14} | {what:<60} | {worst:.1e} | {spread:.3f} |", end="")
    return Compared(worst, spread)


def test_every_kind_of_image(model: str) -> None:
    assert worst_of(model, images_for(model), words(20), TEMPLATES[0]).worst <= TOLERANCE


@pytest.mark.parametrize("count", [1, 2, 200, pytest.param(1_623, marks=pytest.mark.slow)])
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_number_of_labels(model: str, count: int, template: str) -> None:
    cases = dict(list(images_for(model).items())[:2])
    compared = worst_of(model, cases, words(count), template)
    assert compared.worst <= TOLERANCE
    if count >= 200:
        # A comparison in which all labels are equally probable could not fail.
        assert compared.spread >= 0.02


@pytest.mark.parametrize("batch", [1, 8])
def test_batches_paths_bytes_and_pil(model: str, batch: int, tmp_path: Path) -> None:
    labels = words(50)
    paths = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        picture(number, (70 + 9 * number, 60)).save(path)
        paths.append(path)
    expected = reference(model)(
        [str(path) for path in paths], candidate_labels=labels, batch_size=1
    )
    with LabelIndex.build(labels, model=model, name="parity") as index:
        for sources in (
            paths,
            [path.read_bytes() for path in paths],
            [Image.open(io.BytesIO(path.read_bytes())) for path in paths],
        ):
            found = []
            for start in range(0, len(sources), batch):
                found += index.classify(sources[start : start + batch], top_k=50)
            for theirs, mine in zip(expected, found, strict=True):
                assert compare(theirs, mine, labels).worst <= TOLERANCE


def test_probabilities_of_all_labels(model: str) -> None:
    labels = words(60)
    with LabelIndex.build(labels, model=model, name="parity") as index:
        found = index.probabilities([picture(1), picture(2)])
    assert found.shape == (2, 60)
    assert found.dtype == np.float32
    for seed, line in zip((1, 2), found, strict=True):
        expected = reference(model)(picture(seed), candidate_labels=labels)
        wanted = {entry["label"]: entry["score"] for entry in expected}
        np.testing.assert_allclose(line, [wanted[label] for label in labels], atol=TOLERANCE)


def test_subset_is_renormalised(model: str) -> None:
    labels = words(60)
    subset = labels[7:40:3]
    with LabelIndex.build(labels, model=model, name="parity") as index:
        found = index.classify(picture(3), labels=subset, top_k=60)
    expected = reference(model)(picture(3), candidate_labels=subset)
    assert compare(expected, found, subset).worst <= TOLERANCE


ALWAYS = (("float32", "clip-legacy"), ("float32", "siglip2"))
MATRIX = [
    pytest.param(dtype, family, marks=() if (dtype, family) in ALWAYS else pytest.mark.slow)
    for dtype in parity.TOLERANCE
    for family in models.MAKERS
]


@pytest.mark.parametrize(("dtype", "family"), MATRIX)
def test_matrix(family: str, dtype: Dtype, tmp_path: Path) -> None:
    sums = parity.totals(parity.measure(family, dtype, tmp_path))
    print("", *parity.table(sums), sep="\n")
    has_onnx = dtype == "float32" and family != "siglip2"
    assert [one.door for one in sums] == ["drop-in", "index", *["onnx"] * has_onnx]
    assert all(one.holds for one in sums)
    assert all(one.first >= 0.98 for one in sums)  # one near-tie among its images


def test_the_matrix_can_fail(tmp_path: Path) -> None:
    """A reference with another scale is noticed."""
    folder = models.make_clip(tmp_path / "clip")
    images = parity.kinds(tmp_path)
    expected = [
        parity.pairs(
            parity.stock(str(folder), "float32")(k.theirs, candidate_labels=["cat", "dog"])
        )
        for k in images.values()
    ]
    models.rescale(folder, 99.0)
    with LabelIndex.build(["cat", "dog"], model=folder, name="parity") as index:
        answers = index.classify([kind.ours for kind in images.values()])
    found = [[(p.label, p.probability) for p in line] for line in answers]
    assert parity.compare(expected, found).worst > 10 * TOLERANCE
