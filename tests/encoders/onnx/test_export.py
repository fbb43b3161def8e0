"""Towers of every family in ONNX Runtime, compared with torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support import models
from tests.support.pictures import picture
from zsic_index import ModelError, encoders
from zsic_index.embedding_arrays import Float32, Float64
from zsic_index.encoders import Checkpoint, Encoder
from zsic_index.encoders.onnx.export import write_tower
from zsic_index.encoders.onnx.fidelity import (
    bound_change,
    generate_probes,
    measure_differences,
)
from zsic_index.encoders.onnx.files import GRAPH_FILE, TowerFiles
from zsic_index.records import Activation, ModelInfo

FAST = ("clip", "siglip")
"""Families in every run; an export takes three seconds."""

LABELS = tuple(f"label {number}" for number in range(60))


def write(folder: Path, checkpoint: Checkpoint) -> tuple[TowerFiles, Encoder, Float32]:
    encoder = encoders.load(checkpoint, device="cpu")
    labels = encoder.encode_prompts(LABELS).embeddings
    files = write_tower(
        folder, checkpoint.fingerprint, encoder, checkpoint, labels, {"things": "checksum"}
    )
    return files, encoder, labels


@pytest.mark.parametrize(
    "family",
    [
        family if family in FAST else pytest.param(family, marks=pytest.mark.slow)
        for family in models.MAKERS
        if family != "siglip2"
    ],
)
def test_probabilities_are_those_of_torch(
    family: str, checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = encoders.resolve(checkpoints(family))
    files, encoder, labels = write(tmp_path, checkpoint)
    record = files.record
    assert record.images == 200
    assert record.is_exact == (record.change <= 1e-5)
    assert record.is_exact == (files.image_fingerprint == checkpoint.image_fingerprint)
    tower = encoders.load_tower(files)
    assert (tower.image_size, tower.device_type) == (encoder.image_size, "cpu")
    images = [picture(size, (40 + size, 61)) for size in range(7)]
    pixels = [encoder.preprocess(image) for image in images]
    expected = _probabilities(encoder.encode_images(pixels).embeddings, labels, encoder.info)
    # However they are batched.
    for sizes in ([1] * 7, [3, 3, 1], [7]):
        embeddings = _in_batches(tower, images, sizes)
        assert embeddings.dtype == np.float32
        actual = _probabilities(embeddings, labels, encoder.info)
        assert np.abs(actual - expected).max() <= 1e-5
    assert expected.max() > 0.1


def _probabilities(embeddings: Float32, labels: Float32, info: ModelInfo) -> Float64:
    logits = embeddings.astype(np.float64) @ labels.T * info.logit_scale + info.logit_bias
    if info.activation == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _in_batches(
    tower: encoders.VisionTower, images: Sequence[Image.Image], sizes: Sequence[int]
) -> Float32:
    rows, start = [], 0
    for size in sizes:
        pixels = [tower.preprocess(image) for image in images[start : start + size]]
        rows.append(tower.encode_images(pixels).embeddings)
        start += size
    return np.concatenate(rows)


def test_a_tower_that_differs_too_much_has_its_own_fingerprint(tmp_path: Path) -> None:
    """At a logit scale of 9,900 the rounding of float32 alone moves probabilities."""
    folder = models.make_clip(tmp_path / "model", logit_scale=9.2)
    checkpoint = encoders.resolve(folder)
    files, *_ = write(tmp_path, checkpoint)
    assert files.record.change > 1e-5
    assert not files.record.is_exact
    assert files.image_fingerprint != checkpoint.image_fingerprint
    # Of the machine that wrote it the graph says nothing.
    content = (files.folder / GRAPH_FILE).read_bytes()
    assert b".py" not in content
    assert b"site-packages" not in content
    record = json.loads((files.folder / "tower.json").read_text())
    assert record["measured"] == {"things": "checksum"}
    assert record["versions"].keys() == {
        "torch", "transformers", "onnx", "onnxscript", "onnxruntime"
    }  # fmt: skip
    files.verify()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@given(seed=st.integers(0, 2**32 - 1))
def test_the_bound_holds_for_every_subset_and_is_near(activation: Activation, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.standard_normal((12, 4)).astype(np.float32)
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    embeddings = rng.standard_normal((5, 4)).astype(np.float32)
    moved = (1e-4 * rng.standard_normal((5, 4))).astype(np.float32)
    info = ModelInfo("made up", 4, 30.0, -1.0, activation)
    bound = bound_change(moved, labels, info.logit_scale, activation)
    for _ in range(20):
        subset = labels[rng.permutation(12)[: rng.integers(1, 13)]]
        change = _probabilities(embeddings + moved, subset, info) - _probabilities(
            embeddings, subset, info
        )
        assert np.abs(change).max() <= 1.01 * bound
        part = slice(0, len(subset) // 2)
        if activation == "softmax":
            assert np.abs(change[:, part].sum(axis=1)).max() <= 1.01 * bound
    # The worst case is reached by the two labels that move the most and the least, at one half.
    moves = moved @ labels.T
    image = int(np.argmax(np.ptp(moves, axis=1) if activation == "softmax" else abs(moves).max(1)))
    reached = (
        30 / 4 * np.ptp(moves[image])
        if activation == "softmax"
        else 30 / 4 * abs(moves[image]).max()
    )
    assert bound == pytest.approx(reached, rel=1e-5)


@pytest.mark.parametrize("family", ["siglip2"])
def test_a_tower_with_other_inputs_is_refused(
    family: str, checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = encoders.resolve(checkpoints(family))
    assert not checkpoint.has_onnx
    with pytest.raises(ModelError, match="takes pixel_attention_mask, pixel_values, spatial_"):
        write(tmp_path, checkpoint)
    assert not list(tmp_path.iterdir())


def test_probes_are_the_same_in_every_run_and_differ() -> None:
    first, again = list(generate_probes(20)), list(generate_probes(20))
    assert [image.tobytes() for image in first] == [image.tobytes() for image in again]
    assert len({image.tobytes() for image in first}) == 20
    assert min(min(image.size) for image in first) < 100
    assert max(max(image.size) for image in first) > 500


def test_differences_are_measured_and_the_largest_is_taken(
    clip_folder: Path,
) -> None:
    encoder = encoders.load(encoders.resolve(clip_folder), device="cpu")
    pixels = [encoder.preprocess(image) for image in generate_probes(20)]
    steps: list[int] = []

    def shifted(batch: Sequence[encoders.Pixels]) -> encoders.EncodedImages:
        embeddings = encoder.encode_images(batch).embeddings.copy()
        embeddings[-1, 3] += 0.5
        return encoders.EncodedImages(embeddings, {})

    differences = measure_differences(pixels, encoder.encode_images, shifted, steps.append)
    assert steps == [8, 16, 20]
    assert np.flatnonzero(differences.any(axis=1)).tolist() == [7, 15, 19]
    labels = np.zeros((70_000, differences.shape[1]), dtype=np.float32)
    labels[69_999, 3] = -1
    assert bound_change(differences, labels, 4, "sigmoid") == pytest.approx(0.5)
    assert bound_change(differences, labels[:-1], 4, "sigmoid") == 0
