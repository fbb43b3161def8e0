"""Checkpoints of open_clip, against open_clip's own towers and classifier."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import models
from tests.support.hub_cache import COMMIT, put_into
from tests.support.open_clip_towers import TEXT_MODELS, TOWERS, complete
from tests.support.pictures import picture
from zsic_index import LabelIndex, encoders
from zsic_index.errors import LabelError, ModelError

pytestmark = pytest.mark.usefixtures("ready_store")

open_clip: Any = pytest.importorskip("open_clip")

LABELS = ["cat", "Dog", "a red house!", "blue-sea", "one train", "🦌", "قطة", "cat " * 100]

TEMPLATES = ["a photo of a {}.", "{}", "one {} in a tree"]


@pytest.fixture(params=models.OPEN_CLIP_MAKERS)
def folder(request: pytest.FixtureRequest, checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints(request.param)


def reference(name: str, **options: Any) -> tuple[Any, Any, Any]:
    model, _, transform = open_clip.create_model_and_transforms(name, **options)
    return model.eval(), transform, open_clip.get_tokenizer(name)


def test_embeddings_are_open_clip_s(folder: Path) -> None:
    model, transform, tokenizer = reference(f"local-dir:{folder}")
    encoder = encoders.load(encoders.resolve(folder), device="cpu")
    pictures = [picture(seed, (50 + 20 * seed, 60)) for seed in range(3)]
    with torch.no_grad():
        texts = model.encode_text(tokenizer(LABELS), normalize=True)
        images = model.encode_image(torch.stack([transform(p) for p in pictures]), normalize=True)
    np.testing.assert_allclose(encoder.encode_prompts(LABELS).embeddings, texts, atol=2e-6)
    found = encoder.encode_images([encoder.preprocess(p) for p in pictures]).embeddings
    np.testing.assert_allclose(found, images, atol=2e-6)
    assert encoder.info.logit_scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-7)


def test_probabilities_are_those_of_the_zero_shot_classifier(folder: Path) -> None:
    model, transform, tokenizer = reference(f"local-dir:{folder}")
    classifier = open_clip.build_zero_shot_classifier(model, tokenizer, LABELS, TEMPLATES)
    spreads = []
    with LabelIndex.build(LABELS, model=folder, templates=TEMPLATES, name="things") as index:
        for seed in range(4):
            with torch.no_grad():
                image = model.encode_image(transform(picture(seed))[None], normalize=True)
                logits = model.logit_scale.exp() * image @ classifier
                if model.logit_bias is None:
                    expected = logits.softmax(dim=-1)[0]
                else:
                    expected = (logits + model.logit_bias).sigmoid()[0]
            np.testing.assert_allclose(index.probabilities(picture(seed))[0], expected, atol=1e-5)
            spreads.append(float(expected.max() / expected.min()))
    assert max(spreads) >= 10


def test_activation_follows_the_bias(checkpoints: Callable[[str], Path]) -> None:
    for name, activation in (("open_clip", "softmax"), ("open_clip-siglip", "sigmoid")):
        found = encoders.load(encoders.resolve(checkpoints(name)), device="cpu").info
        assert (found.activation, found.logit_bias != 0) == (activation, activation == "sigmoid")


def test_an_architecture_and_a_file(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    folder = checkpoints("open_clip")
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-for-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    weights = folder / "open_clip_model.safetensors"
    checkpoint = encoders.resolve(f"open_clip:tiny-for-tests/{weights}")
    assert encoders.resolve(checkpoint.model_id).fingerprint == checkpoint.fingerprint
    encoder = encoders.load(checkpoint, device="cpu")
    model, transform, _ = reference("tiny-for-tests", pretrained=str(weights))
    with torch.no_grad():
        expected = model.encode_image(transform(picture(1))[None], normalize=True)
    found = encoder.encode_images([encoder.preprocess(picture(1))]).embeddings
    np.testing.assert_allclose(found, expected, atol=2e-6)
    with pytest.raises(ModelError, match="no such file"):
        encoders.resolve("open_clip:tiny-for-tests/missing.safetensors")


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pth"])
def test_pickled_weights(folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    torch.save(load_file(copy / "open_clip_model.safetensors"), copy / name)
    encoder = encoders.load(encoders.resolve(folder), device="cpu")
    assert encoders.resolve(copy).fingerprint == encoders.resolve(folder).fingerprint
    (copy / "open_clip_model.safetensors").unlink()
    assert encoders.resolve(copy).fingerprint != encoders.resolve(folder).fingerprint
    pickled = encoders.load(encoders.resolve(copy), device="cpu")
    assert pickled.info == encoder.info
    np.testing.assert_array_equal(
        pickled.encode_prompts(LABELS).embeddings, encoder.encode_prompts(LABELS).embeddings
    )


def test_a_file_of_a_training_run(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    folder = checkpoints("open_clip")
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-for-training.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    state = load_file(folder / "open_clip_model.safetensors")
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    checkpoint = encoders.resolve(f"open_clip:tiny-for-training/{tmp_path / 'epoch_3.pt'}")
    encoder = encoders.load(checkpoint, device="cpu")
    whole = encoders.load(encoders.resolve(folder), device="cpu")
    assert encoder.info == whole.info
    np.testing.assert_array_equal(
        encoder.encode_prompts(LABELS).embeddings, whole.encode_prompts(LABELS).embeddings
    )


def test_a_tag_is_pinned_to_a_commit(
    checkpoints: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag of open_clip's table, whose repository lies in the Hub's cache."""
    folder = checkpoints("open_clip")
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-with-tag.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    tag = {"hf_hub": "some/weights/", "mean": [0.1] * 3, "std": [0.3] * 3}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-with-tag", {"ours": tag})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    put_into(tmp_path, "some/weights", folder)
    checkpoint = encoders.resolve("open_clip:tiny-with-tag/ours")
    assert checkpoint.revision == COMMIT
    encoder = encoders.load(checkpoint, device="cpu")
    model, transform, _ = reference(
        "tiny-with-tag",
        pretrained=str(folder / "open_clip_model.safetensors"),
        image_mean=tag["mean"],
        image_std=tag["std"],
    )
    with torch.no_grad():
        expected = model.encode_image(transform(picture(1))[None], normalize=True)
    found = encoder.encode_images([encoder.preprocess(picture(1))]).embeddings
    np.testing.assert_allclose(found, expected, atol=2e-6)
    with pytest.raises(ModelError, match="no tag 'theirs'; it has: ours"):
        encoders.resolve("open_clip:tiny-with-tag/theirs")


def test_a_hub_repository(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    put_into(tmp_path, "some/where", folder)
    for name in ("hf-hub:some/where", "open_clip:hf-hub:some/where"):
        checkpoint = encoders.resolve(name)
        assert (checkpoint.model_id, checkpoint.revision) == (name, COMMIT)
        assert encoders.load(checkpoint, device="cpu").info.dim == 48
    with LabelIndex.build(["cat", "dog"], model="hf-hub:some/where", name="things") as index:
        assert len(index.classify(picture(1))) == 2
    with pytest.raises(ModelError, match="hf-hub:some/where instead"):
        encoders.resolve("some/where")


# Towers of every kind


@pytest.fixture
def architecture(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path]:
    """An architecture with towers of one kind, and a file of random weights for it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for repo_id, write in TEXT_MODELS.items():
        write(tmp_path / repo_id)
        put_into(tmp_path / "hub", repo_id, tmp_path / repo_id)
    name = f"tiny-{request.param}"
    (tmp_path / f"{name}.json").write_text(json.dumps(complete(TOWERS[request.param])))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained_text=False)
    models.spread(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    return name, tmp_path / "weights.safetensors"


@pytest.mark.parametrize("architecture", TOWERS, indirect=True)
def test_towers_of_every_kind(architecture: tuple[str, Path]) -> None:
    name, weights = architecture
    model, transform, tokenizer = reference(name, pretrained=str(weights), pretrained_text=False)
    encoder = encoders.load(encoders.resolve(f"open_clip:{name}/{weights}"), device="cpu")
    pictures = [picture(seed, (50 + 20 * seed, 60)) for seed in range(3)]
    with torch.no_grad():
        texts = model.encode_text(tokenizer(LABELS), normalize=True)
        images = model.encode_image(torch.stack([transform(p) for p in pictures]), normalize=True)
    encoded = encoder.encode_prompts(LABELS)
    np.testing.assert_allclose(encoded.embeddings, texts, rtol=0, atol=1e-6)
    embeddings = encoder.encode_images([encoder.preprocess(p) for p in pictures]).embeddings
    np.testing.assert_allclose(embeddings, images, rtol=0, atol=1e-6)
    assert encoded.truncated == ("cat " * 100,)
    for rows in (texts, images):
        assert (rows[0] - rows[1]).abs().max() > 0.01


@pytest.mark.parametrize("architecture", TOWERS, indirect=True)
def test_towers_of_every_kind_in_bfloat16(architecture: tuple[str, Path]) -> None:
    name, weights = architecture
    rows = []
    for dtype in ("float32", "bfloat16"):
        checkpoint = encoders.resolve(f"open_clip:{name}/{weights}", dtype=dtype)
        encoder = encoders.load(checkpoint, device="cpu")
        images = encoder.encode_images([encoder.preprocess(picture(1))]).embeddings
        rows.append(np.concatenate([encoder.encode_prompts(LABELS).embeddings, images]))
    assert (rows[0] * rows[1]).sum(axis=1).min() > 0.98


@pytest.mark.parametrize("architecture", ["xlm-roberta"], indirect=True)
def test_the_configuration_of_a_text_tower_is_in_the_fingerprint(
    architecture: tuple[str, Path], tmp_path: Path
) -> None:
    name, weights = architecture
    before = encoders.resolve(f"open_clip:{name}/{weights}").fingerprint
    repository = tmp_path / "hub" / "models--towers--xlm-roberta"
    other = COMMIT[::-1]
    shutil.copytree(repository / "snapshots" / COMMIT, repository / "snapshots" / other)
    (repository / "refs" / "main").write_text(other)
    assert encoders.resolve(f"open_clip:{name}/{weights}").fingerprint != before


# What cannot be used


def test_offline_names_files_and_place() -> None:
    message = r"imageomics/bioclip.*open_clip_model\.safetensors.*looked in .*builtin:clip"
    with pytest.raises(ModelError, match=message):
        encoders.resolve("hf-hub:imageomics/bioclip")
    with pytest.raises(ModelError, match=r"laion/CLIP-ViT-B-32.*open_clip_model\.safetensors"):
        encoders.resolve("open_clip:ViT-B-32/laion2b_s34b_b79k")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-32", "give an architecture and its weights"),
        ("open_clip:ViT-Z-99/openai", "no architecture 'ViT-Z-99'"),
        ("open_clip:ViT-B-32/nothing", "no tag 'nothing'; it has: openai"),
        ("open_clip:ViT-B-32/openai", "use open_clip:ViT-B-32-quickgelu/openai"),
    ],
)
def test_names_that_open_clip_does_not_have(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        encoders.resolve(name)


def test_a_configuration_that_asks_for_remote_code(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="run code"):
        encoders.resolve(copy)


def test_no_weights(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"none of open_clip_model\.safetensors, .*model\.pth in"):
        encoders.resolve(copy)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_archive_is_refused(checkpoints: Callable[[str], Path]) -> None:
    folder = checkpoints("open_clip")
    weights = folder.parent / "scripted.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), weights)
    with pytest.raises(ModelError, match="TorchScript archive"):
        encoders.load(encoders.resolve(f"open_clip:ViT-B-32/{weights}"), device="cpu")


@pytest.mark.parametrize("label", ["a <end_of_text> b", "<START_OF_TEXT>", "&lt;end_of_text&gt;"])
def test_special_tokens(checkpoints: Callable[[str], Path], label: str) -> None:
    encoder = encoders.load(encoders.resolve(checkpoints("open_clip")), device="cpu")
    with pytest.raises(LabelError, match="special token"):
        encoder.encode_prompts([label])


@pytest.mark.parametrize("file", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_another_file_is_another_fingerprint(folder: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert encoders.resolve(copy).fingerprint == encoders.resolve(folder).fingerprint
    with (copy / file).open("ab") as stream:
        stream.write(b" ")
    assert encoders.resolve(copy).fingerprint != encoders.resolve(folder).fingerprint
