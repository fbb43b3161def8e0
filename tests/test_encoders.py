"""One conformance suite for every encoder, and the finding of checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from conftest import picture
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from zsic_index import encoders
from zsic_index.encoders import Encoder
from zsic_index.errors import LabelError, ModelError
from zsic_index.records import Dtype

PROMPTS = [
    "a cat",
    "A CAT",
    "",
    "a red house and the blue sea, a train, and one small bird in an old tree",
    "naïve café — “quotes”, 100 %",
    "🦌 قطة cat",
    "a cat",
]


@pytest.fixture(params=models.MAKERS)
def folder(request: pytest.FixtureRequest, checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture
def encoder(folder: Path) -> Encoder:
    return encoders.load(encoders.resolve(folder), device="cpu")


def test_prompts_are_embedded_as_float32_of_norm_1_in_order(encoder: Encoder) -> None:
    embeddings = encoder.encode_prompts(PROMPTS).embeddings
    assert embeddings.shape == (len(PROMPTS), encoder.info.dim)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(embeddings[0], embeddings[-1])
    assert np.abs(embeddings[0] - embeddings[3]).max() > 0.01


def test_a_prompts_embedding_does_not_depend_on_its_neighbours(encoder: Encoder) -> None:
    together = encoder.encode_prompts(PROMPTS).embeddings
    for row, prompt in enumerate(PROMPTS):
        alone = encoder.encode_prompts([prompt]).embeddings[0]
        np.testing.assert_allclose(alone, together[row], atol=2e-6)


def test_images_are_embedded_as_float32_of_norm_1_in_order(encoder: Encoder) -> None:
    pixels = [encoder.preprocess(picture(seed)) for seed in range(5)]
    embeddings = encoder.encode_images(pixels).embeddings
    assert embeddings.shape == (5, encoder.info.dim)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-6)
    for row, alone in enumerate(pixels):
        (found,) = encoder.encode_images([alone]).embeddings
        np.testing.assert_allclose(found, embeddings[row], atol=2e-6)


def test_no_images(encoder: Encoder) -> None:
    assert encoder.encode_images([]).embeddings.shape == (0, encoder.info.dim)


def test_numbers_come_from_the_checkpoint(folder: Path, encoder: Encoder) -> None:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    if model.config.model_type == "align":
        scale = 1 / model.temperature.item()
    else:
        scale = model.logit_scale.exp().item()
    assert encoder.info.logit_scale == pytest.approx(scale, rel=1e-7)
    bias = model.logit_bias.item() if hasattr(model, "logit_bias") else 0.0
    assert encoder.info.logit_bias == pytest.approx(bias, rel=1e-7)
    is_siglip = "siglip" in model.config.model_type
    assert encoder.info.activation == ("sigmoid" if is_siglip else "softmax")


def test_over_long_prompts_are_cut_and_reported(encoder: Encoder) -> None:
    long = "cat " * 200
    encoded = encoder.encode_prompts(["a cat", long, long + "dog"])
    assert encoded.truncated == (long, long + "dog")
    assert np.isfinite(encoded.embeddings).all()
    # What lies behind the limit does not count.
    np.testing.assert_allclose(encoded.embeddings[1], encoded.embeddings[2], atol=2e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_towers_give_nearly_the_same(
    folder: Path, encoder: Encoder, dtype: Dtype
) -> None:
    half = encoders.load(encoders.resolve(folder, dtype=dtype), device="cpu")
    assert half.info.logit_scale == pytest.approx(encoder.info.logit_scale, rel=0.02)
    for embed in (
        lambda e: e.encode_prompts(PROMPTS).embeddings,
        lambda e: e.encode_images([e.preprocess(picture(1))]).embeddings,
    ):
        exact, rough = embed(encoder), embed(half)
        assert rough.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rough, axis=1), 1.0, atol=1e-6)
        assert (exact * rough).sum(1).min() > 0.98
        assert np.abs(exact - rough).max() > 0


def test_dtypes_have_fingerprints_of_their_own(clip_folder: Path) -> None:
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
    found = {encoders.resolve(clip_folder, dtype=dtype).fingerprint for dtype in dtypes}
    assert len(found) == 3
    with pytest.raises(ModelError, match="'int8': use float32, bfloat16, float16"):
        encoders.resolve(clip_folder, dtype="int8")  # type: ignore[arg-type]


class _SmallMemory:
    """Stands in for a device on which only batches of ``most`` fit; there is none like it here."""

    def __init__(self, tower: Callable[..., object], most: int) -> None:
        self.tower, self.most, self.sizes = tower, most, list[int]()

    def __call__(self, **inputs: torch.Tensor) -> object:
        size = len(next(iter(inputs.values())))
        self.sizes.append(size)
        if size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.tower(**inputs)


def test_out_of_memory_halves_the_batch_and_says_so_once(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = [encoder.preprocess(picture(seed)) for seed in range(7)]
    expected = encoder.encode_images(pixels).embeddings
    model = encoder._model  # type: ignore[attr-defined]
    small = _SmallMemory(model.get_image_features, 2)
    monkeypatch.setattr(model, "get_image_features", small)
    found = encoder.encode_images(pixels)
    assert found.refused == {}
    np.testing.assert_allclose(found.embeddings, expected, atol=2e-6)
    assert small.sizes == [7, 3, 1, 2, 4, 2, 2]
    encoder.encode_images(pixels)
    assert len([r for r in caplog.records if "does not fit into the memory" in r.message]) == 1


def test_an_input_that_does_not_fit_alone_is_refused(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = encoder._model  # type: ignore[attr-defined]
    monkeypatch.setattr(model, "get_image_features", _SmallMemory(model.get_image_features, 0))
    monkeypatch.setattr(model, "get_text_features", _SmallMemory(model.get_text_features, 0))
    found = encoder.encode_images([encoder.preprocess(picture(1))] * 3)
    assert found.embeddings.shape == (0, encoder.info.dim)
    assert sorted(found.refused) == [0, 1, 2]
    assert "memory" in str(found.refused[0])
    with pytest.raises(ModelError, match="'a cat' does not fit into the memory"):
        encoder.encode_prompts(["a cat"])


def test_an_embedding_that_is_not_finite_is_refused(encoder: Encoder) -> None:
    pixels = [encoder.preprocess(picture(seed)) for seed in range(3)]
    expected = encoder.encode_images(pixels).embeddings
    values = pixels[1]["pixel_values"]
    pixels[1] = pixels[1] | {"pixel_values": np.full_like(values, np.nan)}
    found = encoder.encode_images(pixels)
    assert list(found.refused) == [1]
    assert "not finite" in str(found.refused[1])
    np.testing.assert_allclose(found.embeddings, expected[[0, 2]], atol=2e-6)


def test_a_checkpoint_that_lacks_weights_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    """transformers would fill them with random numbers."""
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    tensors = load_file(copy / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 of the weights.*text_projection\.weight"):
        encoders.load(encoders.resolve(copy), device="cpu")


def test_special_tokens_in_prompts_are_refused(folder: Path, encoder: Encoder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    token = tokenizer.eos_token or tokenizer.sep_token
    with pytest.raises(LabelError, match="special token"):
        encoder.encode_prompts(["fine", f"a {token} b"])


def test_unknown_device() -> None:
    with pytest.raises(ModelError, match="tpu9"):
        encoders.load(encoders.resolve("builtin:clip"), device="tpu9")


# Fingerprints


def test_fingerprint_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert encoders.resolve(copy).fingerprint == encoders.resolve(folder).fingerprint


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_another_file_is_another_fingerprint(clip_folder: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    with (copy / name).open("ab") as file:
        file.write(b" ")
    assert encoders.resolve(copy).fingerprint != encoders.resolve(clip_folder).fingerprint


def test_another_transformers_major_version_is_another_fingerprint(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = encoders.resolve(clip_folder).fingerprint
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "77.0.1")
    assert encoders.resolve(clip_folder).fingerprint != before


# What cannot be used


def test_unsupported_family_names_the_supported_ones(clip_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"'bert'.*align, altclip.*siglip2"):
        encoders.resolve(copy)


@pytest.mark.parametrize("config", ["", "[]", "{"])
def test_unreadable_config(clip_folder: Path, tmp_path: Path, config: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    (copy / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"config\.json"):
        encoders.resolve(copy)


def test_folder_without_safetensors(clip_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelError, match="safetensors"):
        encoders.resolve(copy)


def test_damaged_weights(clip_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        encoders.load(encoders.resolve(copy), device="cpu")


def test_hub_model_without_network_says_what_else_works() -> None:
    with pytest.raises(ModelError, match=r"openai/clip.*builtin:clip"):
        encoders.resolve("openai/clip-vit-base-patch32")


def test_hub_model_in_the_cache_is_pinned_to_its_commit(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--some--clip"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(clip_folder, repo / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = encoders.resolve("some/clip")
    assert (found.model_id, found.revision) == ("some/clip", commit)
    pinned = encoders.resolve("some/clip", commit)
    assert pinned.fingerprint == found.fingerprint
    assert encoders.load(found, device="cpu").info.dim == 48


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./nothing", "a/b/c", "builtin:vit", "not a model!"]
)
def test_no_such_model(name: str) -> None:
    with pytest.raises(ModelError):
        encoders.resolve(name)


def test_revision_of_a_folder_is_refused(clip_folder: Path) -> None:
    with pytest.raises(ModelError, match="revision"):
        encoders.resolve(clip_folder, "main")


def test_models_differ_by_seed(tmp_path: Path, clip_folder: Path) -> None:
    other = models.make_clip(tmp_path / "other", seed=1)
    assert encoders.resolve(other).fingerprint != encoders.resolve(clip_folder).fingerprint
