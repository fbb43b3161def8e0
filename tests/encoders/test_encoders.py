"""One conformance suite for every encoder, and the finding of checkpoints."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, AutoTokenizer, CLIPModel

from tests.support import models
from tests.support.hub_cache import COMMIT, put_into
from tests.support.pictures import picture
from zsic_index import encoders
from zsic_index.encoders import Encoder, two_towers
from zsic_index.encoders.checkpoint import has_torchvision
from zsic_index.encoders.families import FAMILIES
from zsic_index.encoders.transformers.encoder import TransformersEncoder
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


@pytest.fixture(params=[*models.MAKERS, *models.OPEN_CLIP_MAKERS])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[[str], Path]) -> Path:
    if request.param in models.OPEN_CLIP_MAKERS:
        pytest.importorskip("open_clip")
    return checkpoints(request.param)


@pytest.fixture(params=models.MAKERS)
def transformers_folder(request: pytest.FixtureRequest, checkpoints: Callable[[str], Path]) -> Path:
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


def test_a_prompts_embedding_does_not_depend_on_its_neighbours(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = encoder.encode_prompts(PROMPTS).embeddings
    for row, prompt in enumerate(PROMPTS):
        alone = encoder.encode_prompts([prompt]).embeddings[0]
        np.testing.assert_allclose(alone, together[row], atol=2e-6)
    backwards = encoder.encode_prompts(PROMPTS[::-1]).embeddings
    np.testing.assert_allclose(backwards[::-1], together, atol=2e-6)
    for size in (1, 150):
        monkeypatch.setattr(two_towers, "TOKENS_PER_BATCH", size)
        tokens = encoder.tokenise(PROMPTS)
        assert len(tokens.batches) > 1
        in_batches = encoder.encode_tokens(tokens).embeddings
        np.testing.assert_allclose(in_batches, together, atol=2e-6)


def test_images_are_embedded_as_float32_of_norm_1_in_order(encoder: Encoder) -> None:
    pixels = [encoder.preprocess(picture(seed)) for seed in range(5)]
    embeddings = encoder.encode_images(pixels).embeddings
    assert embeddings.shape == (5, encoder.info.dim)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-6)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01
    for size in (1, 2):
        for start in range(0, 5, size):
            found = encoder.encode_images(pixels[start : start + size]).embeddings
            np.testing.assert_allclose(found, embeddings[start : start + size], atol=2e-6)


def test_every_family_is_in_this_suite(checkpoints: Callable[[str], Path]) -> None:
    configs = [
        json.loads((checkpoints(name) / "config.json").read_text()) for name in models.MAKERS
    ]
    assert {config["model_type"] for config in configs} == set(FAMILIES)


def test_no_images(encoder: Encoder) -> None:
    assert encoder.encode_images([]).embeddings.shape == (0, encoder.info.dim)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_numbers_come_from_the_checkpoint(transformers_folder: Path, dtype: Dtype) -> None:
    encoder = encoders.load(encoders.resolve(transformers_folder, dtype=dtype), device="cpu")
    model = AutoModel.from_pretrained(transformers_folder, dtype=torch.float32)
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
    assert half.info == encoder.info
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
    small = _SmallMemory(encoder._image_tower, 2)  # type: ignore[attr-defined]
    monkeypatch.setattr(encoder, "_image_tower", small)
    found = encoder.encode_images(pixels)
    assert found.refused == {}
    np.testing.assert_allclose(found.embeddings, expected, atol=2e-6)
    assert small.sizes == [7, 3, 1, 2, 4, 2, 2]
    encoder.encode_images(pixels)
    assert len([r for r in caplog.records if "does not fit into the memory" in r.message]) == 1


def test_an_input_that_does_not_fit_alone_is_refused(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tower in ("_image_tower", "_text_tower"):
        monkeypatch.setattr(encoder, tower, _SmallMemory(getattr(encoder, tower), 0))
    found = encoder.encode_images([encoder.preprocess(picture(1))] * 3)
    assert found.embeddings.shape == (0, encoder.info.dim)
    assert sorted(found.refused) == [0, 1, 2]
    assert "memory" in str(found.refused[0])
    with pytest.raises(ModelError, match="'a cat' does not fit into the memory"):
        encoder.encode_prompts(["a cat"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in models.MAKERS if name != "siglip2"])
def test_bytes_that_the_device_normalises_give_the_same_embeddings(
    name: str, dtype: Dtype, checkpoints: Callable[[str], Path]
) -> None:
    """As on a GPU; here the device is the CPU."""
    encoder = encoders.load(encoders.resolve(checkpoints(name), dtype=dtype), device="cpu")
    assert isinstance(encoder, TransformersEncoder)
    images = [picture(seed, (40 + seed, 51)) for seed in range(5)]
    expected = encoder.encode_images([encoder.preprocess(image) for image in images])
    encoder.normalise_on_device()
    pixels = [encoder.preprocess(image) for image in images]
    if not has_torchvision():
        assert pixels[0]["pixel_values"].dtype == np.uint8
    encoded = encoder.encode_images(pixels)
    np.testing.assert_array_equal(encoded.embeddings, expected.embeddings)


def test_towers_never_compute_in_tf32(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only settings are looked at: TF32 needs an NVIDIA card."""
    seen = []
    tower = encoder._image_tower

    def look(**inputs: torch.Tensor) -> torch.Tensor:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return tower(**inputs)

    monkeypatch.setattr(encoder, "_image_tower", look)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        encoder.encode_images([encoder.preprocess(picture(0))])
        assert seen == [("highest", False)]
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_an_embedding_that_is_not_finite_is_refused(encoder: Encoder) -> None:
    pixels = [encoder.preprocess(picture(seed)) for seed in range(3)]
    expected = encoder.encode_images(pixels).embeddings
    (name, values), *others = pixels[1].items()
    assert values.dtype == np.float32
    pixels[1] = {name: np.full_like(values, np.nan), **dict(others)}
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


def test_special_tokens_in_prompts_are_refused(transformers_folder: Path) -> None:
    encoder = encoders.load(encoders.resolve(transformers_folder), device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(transformers_folder)
    token = tokenizer.eos_token or tokenizer.sep_token
    with pytest.raises(LabelError, match=rf"holds {re.escape(repr(token))}, a special token"):
        encoder.encode_prompts(["fine", f"a {token} b"])


def test_tokenising_in_several_threads(encoder: Encoder) -> None:
    texts = [[f"{word} {n}" for n in range(3)] for word in ("cat", "dog in a tree", "sea")] * 20
    texts += [["one"], ["a cat, a dog and a house in the old tree by the sea"]] * 20
    expected = [encoder.encode_prompts(line).embeddings for line in texts]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda line: encoder.encode_prompts(line).embeddings, texts))
    finally:
        sys.setswitchinterval(interval)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize(("scale", "named"), [(200.0, "inf"), (math.nan, "nan")])
def test_a_scale_that_is_no_number(
    clip_folder: Path, tmp_path: Path, scale: float, named: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    tensors = load_file(copy / "model.safetensors")
    tensors["logit_scale"] = np.array(scale, dtype=np.float32)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"logit scale is {named}"):
        encoders.load(encoders.resolve(copy), device="cpu")


def test_unknown_device() -> None:
    with pytest.raises(ModelError, match="tpu9"):
        encoders.load(encoders.resolve("builtin:clip"), device="tpu9")


# Fingerprints


def test_fingerprint_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert encoders.resolve(copy).fingerprint == encoders.resolve(folder).fingerprint


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"),
        *("tokenizer.model", "vocab.bpe", "adapter_model.safetensors"),
    ],
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


@pytest.mark.parametrize(
    ("pattern", "named"), [("tokenizer*", "tokenizer files"), ("prep*", "preprocessor_config.json")]
)
def test_folder_without_all_files(
    clip_folder: Path, tmp_path: Path, pattern: str, named: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy, ignore=shutil.ignore_patterns(pattern))
    with pytest.raises(ModelError, match=f"no {named} in .*save_pretrained"):
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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache, with the Hub itself out of reach but not switched off."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path


def test_a_hub_model_without_network_says_what_was_looked_for_and_where(cache: Path) -> None:
    message = (
        r"openai/clip-vit-large-patch14: its files .*model\.safetensors.*"
        r"looked in .*models--openai--clip-vit-large-patch14 for revision main.*builtin:clip"
    )
    with pytest.raises(ModelError, match=message):
        encoders.resolve("openai/clip-vit-large-patch14")


def test_offline_mode_is_honoured(
    cache: Path, monkeypatch: pytest.MonkeyPatch, connections: list[object]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="could not be fetched"):
        encoders.resolve("openai/clip-vit-large-patch14")
    assert connections == []


def test_a_hub_model_in_the_cache_is_pinned_to_its_commit_without_asking(
    cache: Path, clip_folder: Path, connections: list[object]
) -> None:
    put_into(cache, "some/clip", clip_folder)
    found = encoders.resolve("some/clip")
    assert (found.model_id, found.revision) == ("some/clip", COMMIT)
    pinned = encoders.resolve("some/clip", COMMIT)
    assert pinned.fingerprint == found.fingerprint
    assert encoders.load(found, device="cpu").info.dim == 48
    assert connections == []


def test_another_commit_is_another_fingerprint(cache: Path, clip_folder: Path) -> None:
    old = encoders.resolve(str(put_into(cache, "some/clip", clip_folder))).fingerprint
    before = encoders.resolve("some/clip").fingerprint
    other = COMMIT[::-1]
    snapshots = cache / "models--some--clip" / "snapshots"
    shutil.copytree(snapshots / COMMIT, snapshots / other)
    after = encoders.resolve("some/clip", other)
    assert after.revision == other
    assert len({old, before, after.fingerprint}) == 3


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("config.json", "config.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("tokenizer*", "tokenizer files"),
        ("model.safetensors", r"model\.safetensors or pytorch_model\.bin"),
    ],
)
def test_an_incomplete_snapshot_is_asked_for(
    cache: Path, clip_folder: Path, removed: str, named: str, connections: list[object]
) -> None:
    snapshot = put_into(cache, "some/clip", clip_folder)
    for path in snapshot.glob(removed):
        path.unlink()
    with pytest.raises(ModelError, match=rf"{named} not in {snapshot}.*check the network"):
        encoders.resolve("some/clip")
    assert connections


def test_weights_in_several_parts(clip_folder: Path, tmp_path: Path) -> None:
    model = CLIPModel.from_pretrained(clip_folder)
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(copy, max_shard_size="200KB")
    parts = sorted(copy.glob("model-*.safetensors"))
    assert len(parts) > 1
    whole = encoders.load(encoders.resolve(clip_folder), device="cpu")
    split = encoders.load(encoders.resolve(copy), device="cpu")
    assert split.info == whole.info
    np.testing.assert_array_equal(
        split.encode_prompts(PROMPTS).embeddings, whole.encode_prompts(PROMPTS).embeddings
    )
    parts[0].unlink()
    with pytest.raises(ModelError, match="parts"):
        encoders.resolve(copy)


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("config.json", {"AutoConfig": "own.Code", "AutoModel": "own.Code"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["own.Code", None]}),
        ("preprocessor_config.json", {"AutoImageProcessor": "own.Code"}),
    ],
)
def test_code_of_a_checkpoint_is_never_run(
    clip_folder: Path, tmp_path: Path, file: str, entry: dict[str, object]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    trace = tmp_path / "was here"
    (copy / "own.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Code: pass\n")
    values = json.loads((copy / file).read_text())
    kept = {k: v for k, v in values.items() if not k.endswith(("_class", "processor_type"))}
    (copy / file).write_text(json.dumps(kept | {"auto_map": entry}))
    with contextlib.suppress(ModelError):
        encoders.load(encoders.resolve(copy), device="cpu")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("/no/such/folder", "./nothing", "a/b/c", "builtin:vit", "not a model!"),
        *("a" * 400, "~nosuchuser/x", "a\0b"),
    ],
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
