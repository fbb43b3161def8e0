"""Weights in pickles: loaded as transformers loads them, and never run."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from tests.support import models
from tests.support.pictures import picture
from zsic_index import LabelIndex, encoders
from zsic_index.encoders.tensors import read_scalars
from zsic_index.errors import ModelError

LABELS = ["cat", "dog", "a red house", "the blue sea", "one train"]


@pytest.fixture
def copy(clip_folder: Path, tmp_path: Path) -> Path:
    """A CLIP's folder that a test may change."""
    return Path(shutil.copytree(clip_folder, tmp_path / "copy"))


def load(folder: Path, **options: Any) -> encoders.Encoder:
    return encoders.load(encoders.resolve(folder, **options), device="cpu")


def embed(folder: Path, **options: Any) -> np.ndarray:
    return load(folder, **options).encode_prompts(LABELS).embeddings


@pytest.mark.usefixtures("ready_store")
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("family", ["clip", "siglip", "align"])
def test_probabilities_are_the_pipelines(
    checkpoints: Callable[[str], Path], tmp_path: Path, family: str, parts: int
) -> None:
    folder = Path(shutil.copytree(checkpoints(family), tmp_path / "copy"))
    models.pickle_weights(folder, parts=parts)
    assert not list(folder.glob("*.safetensors*"))
    assert len(list(folder.glob("pytorch_model*.bin"))) == parts
    stock = pipeline("zero-shot-image-classification", model=str(folder), device="cpu")
    with LabelIndex.build(LABELS, model=folder, name="things") as index:
        for seed in range(3):
            expected = {
                prediction["label"]: prediction["score"]
                for prediction in stock(picture(seed), candidate_labels=LABELS)
            }
            probabilities = dict(
                zip(index.labels, index.probabilities(picture(seed))[0], strict=True)
            )
            assert probabilities == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_same_embeddings_as_from_safetensors(clip_folder: Path, copy: Path, parts: int) -> None:
    models.pickle_weights(copy, parts=parts)
    np.testing.assert_array_equal(embed(copy), embed(clip_folder))
    assert encoders.resolve(copy).fingerprint != encoders.resolve(clip_folder).fingerprint
    assert load(copy, dtype="bfloat16").info == load(clip_folder).info


def test_a_pickle_of_an_old_torch(clip_folder: Path, copy: Path) -> None:
    """Without a zip archive, it cannot be mapped."""
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(embed(copy), embed(clip_folder))


def test_transformers_converts_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch, connections: list[object]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("DISABLE_SAFETENSORS_CONVERSION", raising=False)
    started: list[str] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    models.pickle_weights(copy)
    load(copy)
    assert not [name for name in started if "conversion" in name]
    assert connections == []
    assert not list(copy.glob("*.safetensors"))


# Both kinds in a folder


def with_other_pickle(folder: Path, parts: int = 1) -> None:
    """Add a pickle of the same weights times two to a folder of safetensors."""
    state = load_file(folder / "model.safetensors")
    twice = {name: tensor * (2 if tensor.ndim > 1 else 1) for name, tensor in state.items()}
    models.write_pickles(folder, twice, parts)


def test_safetensors_are_preferred(clip_folder: Path, copy: Path) -> None:
    with_other_pickle(copy)
    np.testing.assert_array_equal(embed(copy), embed(clip_folder))
    assert encoders.resolve(copy).fingerprint == encoders.resolve(clip_folder).fingerprint


def test_incomplete_safetensors_give_way_to_a_pickle(clip_folder: Path, copy: Path) -> None:
    with_other_pickle(copy)
    (copy / "model.safetensors").unlink()
    entries = {"logit_scale": "model-00001-of-00001.safetensors"}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": entries}))
    assert np.abs(embed(copy) - embed(clip_folder)).max() > 0.01


# What is refused


class _Attack:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(copy: Path, tmp_path: Path, old: bool) -> None:
    state: dict[str, Any] = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    state["attack"] = _Attack(tmp_path / "attacked")
    torch.save(state, copy / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
    with pytest.raises(
        ModelError, match=r"pytorch_model\.bin holds more than tensors \(posix\.mkdir\)"
    ) as refusal:
        load(copy)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "attacked").exists()


def test_code_in_a_later_part_is_refused(copy: Path, tmp_path: Path) -> None:
    models.pickle_weights(copy, parts=3)
    last = max(copy.glob("pytorch_model-*.bin"))
    state = torch.load(last, weights_only=True)
    torch.save({**state, "attack": _Attack(tmp_path / "attacked")}, last)
    with pytest.raises(ModelError, match=rf"{last.name} holds more than tensors"):
        load(copy)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_archive_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    module = torch.jit.script(torch.nn.Linear(2, 2))  # type: ignore[no-untyped-call]
    torch.jit.save(module, copy / "pytorch_model.bin")  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match="TorchScript archive, which holds code"):
        load(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
        (b"", r"pytorch_model\.bin: "),
        (b"<html>proxy</html>", r"pytorch_model\.bin: "),
        (b"PK\x03\x04", r"pytorch_model\.bin: "),
    ],
)
def test_damaged_pickles(copy: Path, content: bytes, message: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=message) as refusal:
        load(copy)
    assert "\n" not in str(refusal.value)


def test_a_pickle_of_something_else(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save(torch.ones(3), copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds a Tensor, not weights by name"):
        load(copy)


def test_a_pointer_in_the_place_of_safetensors(copy: Path) -> None:
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"model\.safetensors is a pointer of Git LFS"):
        load(copy)


def test_a_missing_part_is_named(copy: Path) -> None:
    models.pickle_weights(copy, parts=3)
    part = min(copy.glob("pytorch_model-*.bin"))
    part.unlink()
    with pytest.raises(ModelError, match=rf"no {part.name} in .*copy"):
        encoders.resolve(copy)


@pytest.mark.parametrize("kind", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("part", ["../outside.bin", "/tmp/x.bin", "a/../../x.bin", "C:\\x.bin"])
def test_an_index_that_leaves_the_folder(copy: Path, kind: str, part: str) -> None:
    (copy / "model.safetensors").rename(copy.parent / "outside.bin")
    index = {"metadata": {}, "weight_map": {"logit_scale": part}}
    (copy / f"{kind}.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"outside of its folder"):
        encoders.resolve(copy)


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": []}'])
def test_an_index_that_cannot_be_read(copy: Path, index: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin\.index\.json is no index"):
        encoders.resolve(copy)


def test_weights_under_a_name_of_their_own(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps(config | {"transformers_weights": "x.safetensors"})
    )
    with pytest.raises(ModelError, match=r"'x\.safetensors' as its weights"):
        encoders.resolve(copy)


def test_scalars_of_a_training_checkpoint(tmp_path: Path) -> None:
    """open_clip's training saves more than weights, under names with a prefix."""
    state = {"module.logit_scale": torch.tensor([2.5]), "module.text.weight": torch.ones(2, 2)}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    assert read_scalars([tmp_path / "epoch_3.pt"]) == {"logit_scale": 2.5}
    save_file({"logit_bias": torch.tensor(-1.5)}, tmp_path / "model.safetensors")
    assert read_scalars([tmp_path / "model.safetensors"]) == {"logit_bias": -1.5}
