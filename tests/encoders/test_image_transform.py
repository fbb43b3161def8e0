"""Pixels of ImageTransform against those of transformers' own image processors."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from tests.support import models
from tests.support.paths import DATA
from zsic_index.encoders import image_transform
from zsic_index.encoders.base import PIXEL_VALUES
from zsic_index.encoders.checkpoint import has_torchvision
from zsic_index.encoders.families import FAMILIES
from zsic_index.encoders.image_transform import DEFAULTS, IGNORED, read_transform
from zsic_index.encoders.transformers.image_processor import ImageProcessor

pytestmark = pytest.mark.skipif(
    has_torchvision(), reason="transformers prefers torchvision, whose pixels differ"
)

EDGES = (1, 2, 3, 5, 7, 16, 31, 32, 33, 36, 37, 47, 64, 97)
# At 98 x 49, 55 x 44 and 45 x 10 the longer edge depends on the order of its factors.
SIZES = [*product(EDGES, EDGES), (1, 200), (200, 1), (98, 49), (49, 98)]
FEW_SIZES = [(1, 1), (1, 70), (70, 1), (5, 7), (19, 19), (24, 33), (33, 24), (55, 44), (44, 55)]
PHOTO_SIZES = [(1, 1), (223, 224), (224, 224), (289, 351), (640, 427), (45, 10), (10, 45)]

PUBLISHED: dict[str, dict[str, Any]] = json.loads((DATA / "image_processors.json").read_text())
"""Configurations in the forms that checkpoints are published with."""

NAFLEX = PUBLISHED.pop("google/siglip2-base-patch16-naflex")

SMALL = {"size": {"shortest_edge": 24}, "crop_size": {"height": 20, "width": 20}}
VARIANTS: dict[str, dict[str, Any]] = {
    "nearest": {"resample": 0},
    "lanczos": {"resample": 1},
    "bilinear": {"resample": 2},
    "bicubic": {"resample": 3},
    "box": {"resample": 4},
    "hamming": {"resample": 5},
    "integers": {"size": 24, "crop_size": 19},
    "an integer for a square": {"size": 24, "default_to_square": True},
    "an integer without a rule": {"size": 24, "default_to_square": None},
    "lists": {"size": [24, 30], "crop_size": [25, 17]},
    "oblong": {"size": {"height": 17, "width": 40}, "crop_size": {"height": 30, "width": 11}},
    "an even crop of an odd size": {"size": {"height": 33, "width": 25}},
    "a larger crop": {"size": {"shortest_edge": 24}, "crop_size": {"height": 51, "width": 40}},
    "a crop that is larger on one side": {"crop_size": {"height": 20, "width": 90}},
    "no crop": {"do_center_crop": False},
    "null for a crop": {"do_center_crop": None, "crop_size": None},
    "no scaling": {"do_resize": False},
    "no scaling and no size": {"do_resize": False, "size": None, "do_center_crop": True},
    "neither scaling nor crop": {"do_resize": False, "do_center_crop": False},
    "no rescaling": {"do_rescale": False},
    "no normalisation": {"do_normalize": False},
    "a factor": {"rescale_factor": 0.0123},
    "an integer factor": {"rescale_factor": 2},
    "one mean": {"image_mean": 0.3, "image_std": 2},
    "a mean by channel": {"image_mean": [0, 0.2, 1.3], "image_std": [3, 0.1, 0.7]},
    "one image to pad": {"do_pad": True},
    "no conversion": {"do_convert_rgb": False},
    "other options": {"data_format": "channels_first", "device": None, "processor_class": "A"},
}  # fmt: skip
EFFICIENTNET_VARIANTS: dict[str, dict[str, Any]] = {
    "offset": {"rescale_offset": True},
    "offset without rescaling": {"rescale_offset": True, "do_rescale": False},
    "no offset": {"rescale_offset": None},
    "no top": {"include_top": False},
    "top without normalisation": {"include_top": True, "do_normalize": False},
    "only top": {"include_top": True, "do_normalize": False, "do_rescale": False},
}


def write(folder: Path, options: Any, model_config: Any = None, *, nested: bool = False) -> Path:
    """Write an image processor's configuration, and that of its model."""
    if nested:
        text = json.dumps({"image_processor": options, "processor_class": "CLIPProcessor"})
        (folder / "processor_config.json").write_text(text)
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(options))
    (folder / "config.json").write_text(json.dumps(model_config or {"model_type": "clip"}))
    return folder


def noise(size: tuple[int, int]) -> Image.Image:
    width, height = size
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def load_processor(folder: Path) -> Any:
    return AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )


def own_pixels(processor: Any, image: Image.Image) -> np.ndarray:
    return processor(images=[image], return_tensors="np")["pixel_values"][0]


def check_pixels(folder: Path, images: Iterable[Image.Image]) -> None:
    """Compare the transform of a folder with transformers' image processor, bit for bit."""
    transform, processor = read_transform(folder), load_processor(folder)
    assert transform is not None
    assert transform.image_size == ImageProcessor(processor).image_size
    for image in images:
        pixels, reference = transform(image)[PIXEL_VALUES], own_pixels(processor, image)
        assert pixels.dtype == reference.dtype == np.float32
        assert pixels.shape == reference.shape
        assert pixels.tobytes() == reference.tobytes(), f"{image.size}"


@pytest.mark.parametrize("name", [name for name in models.MAKERS if name != "siglip2"])
def test_200_sizes_of_every_family(name: str, checkpoints: Callable[[str], Path]) -> None:
    assert len(set(SIZES)) == 200
    check_pixels(checkpoints(name), map(noise, SIZES))


def test_naflex_is_left_to_transformers(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    assert read_transform(checkpoints("siglip2")) is None
    assert read_transform(write(tmp_path, NAFLEX)) is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(name: str, tmp_path: Path) -> None:
    check_pixels(write(tmp_path, PUBLISHED[name]), map(noise, PHOTO_SIZES))


@pytest.mark.parametrize("processor", DEFAULTS)
def test_defaults(processor: str, tmp_path: Path) -> None:
    check_pixels(write(tmp_path, {"image_processor_type": processor}), map(noise, PHOTO_SIZES))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("processor", ["CLIPImageProcessor", "EfficientNetImageProcessor"])
def test_variants(processor: str, variant: str, tmp_path: Path) -> None:
    options = {"image_processor_type": processor} | SMALL | VARIANTS[variant]
    check_pixels(write(tmp_path, options), map(noise, FEW_SIZES))


@pytest.mark.parametrize("variant", EFFICIENTNET_VARIANTS)
def test_variants_of_efficientnet(variant: str, tmp_path: Path) -> None:
    options = {"image_processor_type": "EfficientNetImageProcessor", "size": 24}
    check_pixels(write(tmp_path, options | EFFICIENTNET_VARIANTS[variant]), map(noise, FEW_SIZES))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("processor", DEFAULTS)
def test_200_sizes_of_every_variant(processor: str, variant: str, tmp_path: Path) -> None:
    options = {"image_processor_type": processor} | SMALL | VARIANTS[variant]
    check_pixels(write(tmp_path, options), map(noise, SIZES))


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name != "siglip2"])
def test_the_class_follows_from_the_model(model_type: str, tmp_path: Path) -> None:
    write(tmp_path, {"resample": 2}, {"model_type": model_type})
    check_pixels(tmp_path, map(noise, FEW_SIZES))


@pytest.mark.parametrize(
    "name",
    [
        {"image_processor_type": "SiglipImageProcessorFast"},
        {"image_processor_type": "SiglipImageProcessorPil"},
        {"feature_extractor_type": "SiglipFeatureExtractor"},
        {"feature_extractor_type": "SiglipImageProcessor"},
        {"feature_extractor_type": "ViTFeatureExtractor", "image_processor_type": None},
        {"feature_extractor_type": "A", "image_processor_type": "BitImageProcessor"},
    ],
)
def test_names_of_classes(name: dict[str, Any], tmp_path: Path) -> None:
    check_pixels(write(tmp_path, name | {"size": 24}), map(noise, FEW_SIZES))


def test_a_processors_own_file_goes_before(tmp_path: Path) -> None:
    write(tmp_path, {"image_processor_type": "SiglipImageProcessor", "size": 24})
    write(tmp_path, {"image_processor_type": "BlipImageProcessor", "size": 30}, nested=True)
    check_pixels(tmp_path, map(noise, FEW_SIZES))
    (tmp_path / "processor_config.json").write_text('{"image_processor": null}')
    check_pixels(tmp_path, map(noise, FEW_SIZES))


@pytest.mark.parametrize("converts", [True, False])
def test_a_transparent_colour_becomes_white(converts: bool, tmp_path: Path) -> None:
    image = noise((40, 30))
    image.info["transparency"] = image.getpixel((3, 4))
    write(tmp_path, {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": converts})
    check_pixels(tmp_path, [image])


UNSUPPORTED: dict[str, dict[str, Any]] = {
    "class": {"image_processor_type": "ConvNextImageProcessor"},
    "class that is no text": {"image_processor_type": ["CLIPImageProcessor"]},
    "old class under the new name": {"image_processor_type": "CLIPFeatureExtractor"},
    "option": {"use_square_size": True},
    "option of another class": {"rescale_offset": True},
    "code": {"auto_map": {"AutoImageProcessor": "processing.Own"}},
    "NaFlex": {"max_num_patches": 256},
    "padding": {"do_pad": True, "pad_size": {"height": 300, "width": 300}},
    "longest edge": {"size": {"longest_edge": 224}},
    "two edges": {"size": {"shortest_edge": 224, "longest_edge": 300}},
    "fraction": {"size": 224.0},
    "zero": {"size": 0},
    "true for a size": {"size": True},
    "three sides": {"size": [1, 2, 3]},
    "crop by its shorter edge": {"crop_size": {"shortest_edge": 224}},
    "no size": {"size": None},
    "no sizes": {"size": None, "crop_size": None, "do_resize": False, "do_center_crop": False},
    "no crop size": {"crop_size": None},
    "name of a filter": {"resample": "bicubic"},
    "unknown filter": {"resample": 99},
    "no filter": {"resample": None},
    "number for a flag": {"do_resize": 1},
    "no factor": {"rescale_factor": None},
    "no mean": {"image_mean": None},
    "two means": {"image_mean": [0.5, 0.5]},
    "text for a mean": {"image_mean": ["0.5", 0.5, 0.5]},
    "no number": {"image_mean": float("nan")},
    "large number": {"image_mean": 10**400},
    "zero deviation": {"image_std": [0, 1, 1]},
    "integers": {"do_rescale": False, "do_normalize": False},
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
def test_anything_else_is_left_to_transformers(reason: str, tmp_path: Path) -> None:
    options = {"image_processor_type": "CLIPImageProcessor"}
    assert read_transform(write(tmp_path, options)) is not None
    assert read_transform(write(tmp_path, options | UNSUPPORTED[reason])) is None


@pytest.mark.parametrize(
    "model_config",
    [
        {"model_type": "resnet"},
        {"model_type": "siglip2"},
        {"model_type": "clip", "image_processor_type": "BlipImageProcessor"},
        {"model_type": "clip", "auto_map": {"AutoImageProcessor": "processing.Own"}},
        {"model_type": "clip", "pretrained_cfg": {}},
        {"architecture": "vit"},
        [],
    ],
)
def test_other_models_are_left_to_transformers(model_config: Any, tmp_path: Path) -> None:
    assert read_transform(write(tmp_path, {"size": 24})) is not None
    write(tmp_path, {"size": 24})
    (tmp_path / "config.json").write_text(json.dumps(model_config))
    assert read_transform(tmp_path) is None


def test_missing_and_broken_files_are_left_to_transformers(tmp_path: Path) -> None:
    assert read_transform(tmp_path) is None
    assert read_transform(write(tmp_path, [])) is None
    assert read_transform(write(tmp_path, {}, nested=True)) is not None
    (tmp_path / "processor_config.json").write_bytes(b"\xff{")
    assert read_transform(tmp_path) is None


def test_torchvision_is_left_to_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {})
    monkeypatch.setattr(image_transform, "has_torchvision", lambda: True)
    assert read_transform(tmp_path) is None


def test_other_modes_are_refused(tmp_path: Path) -> None:
    transform = read_transform(write(tmp_path, {}))
    assert transform is not None
    with pytest.raises(ValueError, match="mode RGBA: convert it"):
        transform(noise((30, 20)).convert("RGBA"))


flags = st.sampled_from([True, False, None])
sides = st.integers(1, 40)
squares = st.fixed_dictionaries({"height": sides, "width": sides})
numbers = st.floats(-3, 3) | st.integers(-3, 3)
deviations = st.floats(0.01, 5) | st.integers(1, 5)
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "do_resize": flags,
    "do_center_crop": flags,
    "do_rescale": flags,
    "do_normalize": flags,
    "do_convert_rgb": flags,
    "default_to_square": flags,
    "do_pad": flags,
    "pad_size": st.none(),
    "size": sides | squares | st.fixed_dictionaries({"shortest_edge": sides}) | st.none(),
    "crop_size": sides | squares | st.lists(sides, min_size=2, max_size=2) | st.none(),
    "resample": st.sampled_from(list(map(int, Image.Resampling))),
    "rescale_factor": st.floats(-0.1, 0.1) | st.none(),
    "image_mean": numbers | st.lists(numbers, min_size=3, max_size=3) | st.none(),
    "image_std": deviations | st.lists(deviations, min_size=3, max_size=3) | st.none(),
    "rescale_offset": flags,
    "include_top": flags,
    "data_format": st.sampled_from(["channels_first", None]),
    "size_divisor": st.just(32),
}


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(DEFAULTS)))
    names = sorted(OPTIONS.keys() & (DEFAULTS[name].keys() | IGNORED))
    options = draw(
        st.fixed_dictionaries({}, optional={option: OPTIONS[option] for option in names})
    )
    return options | {"image_processor_type": name + draw(st.sampled_from(["", "Fast", "Pil"]))}


@given(options=configurations(), size=st.tuples(st.integers(1, 99), st.integers(1, 99)))
@settings(max_examples=150)
def test_any_configuration_gives_the_same_pixels_or_none(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), options)
        if read_transform(path) is not None:
            check_pixels(path, [noise(size)])
            return
        # Then transformers has no use for it either, or its pixels are none for a model.
        try:
            with warnings.catch_warnings(action="ignore"):
                processor = load_processor(path)
                pixels = own_pixels(processor, noise(size))
                _ = ImageProcessor(processor).image_size
        except (ValueError, TypeError):
            return
        assert pixels.dtype != np.float32 or not np.isfinite(pixels).all()


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_those_of_transformers(name: str) -> None:
    processor = getattr(transformers, f"{name}Pil")
    for option, value in DEFAULTS[name].items():
        default = getattr(processor, option, None)
        assert (tuple(default) if isinstance(default, list) else default) == value, option
    assert processor.valid_kwargs.__annotations__.keys() - IGNORED == DEFAULTS[name].keys()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_has_the_image_processor_of_transformers(model_type: str) -> None:
    name = FAMILIES[model_type].image_processor
    assert IMAGE_PROCESSOR_MAPPING_NAMES[model_type]["pil"] == f"{name}Pil"


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    write(tmp_path, PUBLISHED["openai/clip-vit-base-patch32"])
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from zsic_index.encoders.image_transform import read_transform\n"
        f"transform = read_transform(Path({str(tmp_path)!r}))\n"
        "pixels = transform(Image.new('RGB', (300, 200)))['pixel_values']\n"
        "heavy = ('torch', 'transformers', 'huggingface_hub', 'sqlalchemy', 'faiss')\n"
        "print(pixels.shape, [name for name in heavy if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.splitlines()[-1] == "(3, 224, 224) []"
