"""Adapters of PEFT: applied where the stock pipeline applies them, refused where they cannot be."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForZeroShotImageClassification

from tests.support.hub_cache import put_into
from tests.support.pictures import picture
from tests.support.rewrites import drop_weights, edit_json
from tests.support.stock import LABELS, load, probabilities, stock, stock_probabilities
from zsic_index import CachedZeroShotImageClassificationPipeline, LabelIndex, encoders
from zsic_index.errors import ModelError

# peft asks a model of transformers for an attribute that has been renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed"
)

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4},
    "scaled": {"r": 4, "lora_alpha": 1, "use_rslora": True},
    "saved": {"r": 4, "modules_to_save": ["text_projection"], "bias": "lora_only"},
}


def train(base: Path, folder: Path, **options: Any) -> Path:
    """Write a random adapter for a checkpoint to a folder of its own."""
    import peft

    torch.manual_seed(1)
    model = AutoModelForZeroShotImageClassification.from_pretrained(base)
    settings = peft.LoraConfig(target_modules=["q_proj", "v_proj", "fc1"], **options)
    adapted = peft.get_peft_model(model, settings)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.2)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink()
    return folder


@pytest.fixture
def adapter(clip_folder: Path, tmp_path: Path) -> Path:
    pytest.importorskip("peft")
    return train(clip_folder, tmp_path / "adapter", **KINDS["lora"])


@pytest.fixture
def whole(clip_folder: Path, adapter: Path, tmp_path: Path) -> Path:
    """A complete checkpoint with an adapter beside it, which names another base."""
    folder = tmp_path / "whole"
    shutil.copytree(clip_folder, folder)
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    name_base(folder, "some/other")
    return folder


def name_base(folder: Path, base: str | None) -> None:
    edit_json(folder / "adapter_config.json", lambda v: v.update(base_model_name_or_path=base))


def same(folder: Path) -> None:
    expected = stock_probabilities(stock(folder))
    np.testing.assert_allclose(probabilities(load(folder)), expected, rtol=0, atol=1e-5)


def differs(first: Path, second: Path) -> bool:
    difference = np.abs(probabilities(load(first)) - probabilities(load(second)))
    return float(difference.max()) > 0.1


@needs_peft
@pytest.mark.parametrize("maker", ["clip", "siglip"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_applied_to_its_base(
    checkpoints: Callable[[str], Path], tmp_path: Path, maker: str, kind: str
) -> None:
    if maker == "siglip" and kind == "saved":
        pytest.skip("SigLIP has no text_projection")
    base = checkpoints(maker)
    folder = train(base, tmp_path / "adapter", **KINDS[kind])
    same(folder)
    assert differs(folder, base)


def test_an_adapter_beside_a_whole_checkpoint(whole: Path, clip_folder: Path) -> None:
    same(whole)
    assert differs(whole, clip_folder)


def test_only_the_last_adapter_is_applied(whole: Path, adapter: Path, clip_folder: Path) -> None:
    name_base(adapter, str(whole))
    tensors = load_file(adapter / "adapter_model.safetensors")
    turned = {name: -tensor if "lora_A" in name else tensor for name, tensor in tensors.items()}
    save_file(turned, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    same(adapter)
    assert differs(adapter, whole)


def test_a_merged_adapter(adapter: Path, clip_folder: Path, tmp_path: Path) -> None:
    import peft

    model = AutoModelForZeroShotImageClassification.from_pretrained(clip_folder)
    merged = tmp_path / "merged"
    shutil.copytree(clip_folder, merged)
    peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(merged)
    same(merged)
    np.testing.assert_allclose(
        probabilities(load(merged)), probabilities(load(adapter)), rtol=0, atol=1e-5
    )
    shutil.copy(adapter / "adapter_config.json", merged)
    with pytest.raises(
        ModelError, match=r"no adapter_model\.safetensors.*if the adapter is merged"
    ):
        load(merged)


def test_towers_in_float16(adapter: Path) -> None:
    expected = stock_probabilities(stock(adapter, "float16"))
    found = probabilities(load(adapter, "float16"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)


def test_on_the_hub(
    adapter: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter in a repository is for its base, even beside a whole model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    put_into(tmp_path / "hub", "some/base", clip_folder)
    name_base(adapter, "some/base")
    put_into(tmp_path / "hub", "some/adapter", adapter)
    expected = stock_probabilities(stock(Path("some/adapter")))
    for name in (adapter, "some/adapter"):
        checkpoint = encoders.resolve(name)
        encoder = encoders.load(checkpoint, device="cpu")
        np.testing.assert_allclose(probabilities(encoder), expected, rtol=0, atol=1e-5)
    assert checkpoint.model_id == "some/adapter"
    assert checkpoint.revision is not None
    pinned = encoders.resolve("some/adapter", checkpoint.revision)
    assert pinned.fingerprint == checkpoint.fingerprint


def test_the_drop_in_accepts_an_index_of_the_adapter(
    adapter: Path, clip_folder: Path, ready_store: Path
) -> None:
    for folder, name in ((adapter, "adapted"), (clip_folder, "plain")):
        LabelIndex.build(LABELS, model=folder, name=name).close()
    mine = stock(adapter, pipeline_class=CachedZeroShotImageClassificationPipeline)
    theirs = stock(adapter)(picture(1), candidate_labels=LABELS)
    for labels in (LABELS, "adapted"):
        for entry, expected in zip(mine(picture(1), labels), theirs, strict=True):
            assert entry["label"] == expected["label"]
            assert entry["score"] == pytest.approx(expected["score"], abs=1e-5)
    with pytest.raises(ModelError, match="was not built with this model"):
        mine(picture(1), "plain")


def test_fingerprints_cover_base_and_adapter(
    adapter: Path, clip_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(clip_folder, base)
    name_base(adapter, str(base))
    prints = [encoders.resolve(folder).fingerprint for folder in (base, adapter)]
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors[min(tensors)] += 1
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    prints.append(encoders.resolve(adapter).fingerprint)
    edit_json(adapter / "adapter_config.json", lambda v: v.update(lora_alpha=3))
    prints.append(encoders.resolve(adapter).fingerprint)
    with (base / "model.safetensors").open("ab") as file:
        file.write(b" ")
    prints.append(encoders.resolve(adapter).fingerprint)
    assert len(set(prints)) == len(prints)


# What is refused


@pytest.fixture
def written(clip_folder: Path, tmp_path: Path) -> Path:
    """A folder with an adapter's files, which peft has not seen."""
    folder = tmp_path / "written"
    folder.mkdir()
    values = {"peft_type": "LORA", "base_model_name_or_path": str(clip_folder)}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    save_file({}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("is_whole", [False, True])
def test_without_peft(
    written: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    """The stock pipeline would ignore an adapter beside a whole checkpoint."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "peft" else find(name, *rest),
    )
    if is_whole:
        shutil.copytree(clip_folder, written, dirs_exist_ok=True)
    with pytest.raises(ModelError, match=r"adapter_config\.json\) needs peft: pip install peft$"):
        encoders.resolve(written)


@needs_peft
@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("/no/such/folder", "there is no folder /no/such/folder, which its adapter_config"),
        (None, "base_model_name_or_path None: set it to the folder or the Hub id"),
        ("some/where", "model some/where: its files .* are not in the Hub's cache"),
    ],
)
def test_a_base_that_is_not_there(written: Path, base: str | None, message: str) -> None:
    name_base(written, base)
    with pytest.raises(ModelError, match=message):
        encoders.resolve(written)


@needs_peft
@pytest.mark.parametrize("content", ["", "[]", '{"peft_type": "LORA"}'])
def test_a_configuration_that_names_no_base(written: Path, content: str) -> None:
    (written / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"adapter_config\.json names no base"):
        encoders.resolve(written)


@needs_peft
@pytest.mark.parametrize(
    "settings",
    [
        {"peft_type": "LORA", "target_modules": ["no_such_module"]},
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "task_type": "CAUSAL_LM"},
        {"config": "pfeiffer", "hidden_size": 64},
    ],
)
def test_an_adapter_that_does_not_fit(written: Path, settings: dict[str, Any]) -> None:
    edit_json(written / "adapter_config.json", lambda v: (v.pop("peft_type"), v.update(settings)))
    with pytest.raises(ModelError, match="cannot be applied to a CLIPModel: ") as refusal:
        load(written)
    assert "\n" not in str(refusal.value)


def test_weights_in_a_pickle(written: Path) -> None:
    """The stock pipeline does not find them in a folder either."""
    (written / "adapter_model.safetensors").rename(written / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors: save the adapter again"):
        encoders.resolve(written)


def test_weights_that_are_missing(whole: Path, adapter: Path) -> None:
    """Those of the adapter, and those of a whole checkpoint beside one."""
    drop_weights(whole, "text_projection.weight")
    with pytest.raises(ModelError, match=r"lack 1 of the weights of .*text_projection\.weight"):
        load(whole)
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not find 1 weights of the adapter.*lora_A"):
        load(adapter)


def test_a_dora_is_never_applied_in_part(adapter: Path, clip_folder: Path, tmp_path: Path) -> None:
    """The stock pipeline loads its matrices, but not its magnitudes."""
    folder = train(clip_folder, tmp_path / "dora", r=2, use_dora=True)
    with pytest.raises(ModelError, match=r"lora_magnitude_vector.*merge it with peft's"):
        load(folder)
