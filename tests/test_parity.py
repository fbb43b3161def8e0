"""The probabilities of transformers' own pipeline, in the same process.

The reference is given the same files and does all of its own work: opening, preprocessing,
tokenising, both towers, softmax or sigmoid. ``python -m pytest tests/test_parity.py -m slow -s``
prints the whole table.
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
from conftest import picture
from PIL import Image
from test_images import CASES
from transformers import pipeline

from zsic_index import LabelIndex, builtin, taxonomy
from zsic_index.records import Prediction

TOLERANCE = 1e-5

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
            assert abs(wanted[mine.label] - theirs["score"]) <= 5e-6 * max(theirs["score"], 1e-3)
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
