"""Preprocess images as transformers' image processors do, without importing transformers.

``read_transform`` reads the configuration of a checkpoint's image processor, and returns an
ImageTransform whose pixels are equal, bit for bit, to those of transformers' own processor with its
Pillow backend. It knows the processors in DEFAULTS and the options in them; for any other processor
or option it returns None, and ``load_preprocessor`` takes transformers'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zsic_index.embedding_arrays import Float32
from zsic_index.encoders.base import PIXEL_VALUES, Pixels, Preprocessor
from zsic_index.encoders.checkpoint import has_torchvision
from zsic_index.encoders.families import FAMILIES

_OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

_COMMON: dict[str, Any] = {
    "do_convert_rgb": None,
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "default_to_square": True,
    "resample": 3,
    "do_center_crop": None,
    "crop_size": None,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
    "do_pad": None,
    "pad_size": None,
}
_CLIP = _COMMON | {
    "do_convert_rgb": True,
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": _OPENAI_MEAN,
    "image_std": _OPENAI_STD,
}

DEFAULTS: Mapping[str, dict[str, Any]] = {
    "BitImageProcessor": _CLIP,
    "BlipImageProcessor": _COMMON
    | {
        "do_convert_rgb": True,
        "size": {"height": 384, "width": 384},
        "image_mean": _OPENAI_MEAN,
        "image_std": _OPENAI_STD,
    },
    "CLIPImageProcessor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "EfficientNetImageProcessor": _COMMON
    | {
        "size": {"height": 346, "width": 346},
        "do_center_crop": False,
        "crop_size": {"height": 289, "width": 289},
        "rescale_offset": False,
        "include_top": True,
    },
    "SiglipImageProcessor": _COMMON | {"do_convert_rgb": True, "default_to_square": False},
    "ViTImageProcessor": _COMMON | {"resample": 2},
}
"""Options that change pixels and their defaults, by the class of the image processor."""

IGNORED = frozenset(
    {
        "_valid_processor_keys",
        "data_format",
        "device",
        "disable_grouping",
        "feature_extractor_type",
        "image_processor_type",
        "image_seq_length",
        "input_data_format",
        "processor_class",
        "return_tensors",
        "size_divisor",
    }
)
"""Options of published checkpoints that don't change the pixels of a single RGB image."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageTransform:
    """Preprocessing of single images: scale, crop at the centre, normalise.

    Attributes:
        resize: (height, width) to scale to, or the length of the shorter edge; None to keep the
            size.
        resample: Pillow's filter for scaling.
        crop: (height, width) of the part at the centre, with black borders where the image is
            smaller; None for the whole image.
        levels: (3, 256) float32, the output for each value of a pixel in red, green and blue.
        on_white: True to put an image with a transparent colour on white.
        image_size: the longest side that an image is scaled or cut to.
    """

    resize: tuple[int, int] | int | None
    resample: Image.Resampling
    crop: tuple[int, int] | None
    levels: Float32
    on_white: bool
    image_size: int

    def __call__(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into (3, H, W) float32 pixels, under the name PIXEL_VALUES.

        Raises:
            ValueError: when the image's mode is not RGB.
        """
        image = self._scale(image)
        pixels = np.empty((3, image.height, image.width), np.float32)
        for band, levels, output in zip(image.split(), self.levels, pixels, strict=True):
            # Without a mode, take() copies the output once more to check indices first.
            np.take(levels, np.asarray(band), out=output, mode="clip")
        return {PIXEL_VALUES: pixels}

    def without_levels(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into (H, W, 3) uint8 pixels, to which ``levels`` are to be applied.

        They are a quarter of the bytes to copy to a device.

        Raises:
            ValueError: when the image's mode is not RGB.
        """
        return {PIXEL_VALUES: np.asarray(self._scale(image))}

    def _scale(self, image: Image.Image) -> Image.Image:
        """Return an RGB image scaled and cut to the size of the input."""
        if image.mode != "RGB":
            raise ValueError(f'image of mode {image.mode}: convert it with image.convert("RGB")')
        if self.on_white and image.info.get("transparency") is not None:
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        if self.resize is not None:
            image = image.resize(_scaled_size(image.size, self.resize), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return image


def load_preprocessor(folder: Path) -> Preprocessor:
    """Return the transform of a checkpoint's folder, else transformers' own image processor.

    Raises:
        Exception: of any kind, when transformers cannot load the image processor.
    """
    transform = read_transform(folder)
    if transform is not None:
        return transform
    # This imports transformers.
    from zsic_index.encoders.transformers.image_processor import ImageProcessor

    return ImageProcessor.load(folder)


def read_transform(folder: Path) -> ImageTransform | None:
    """Read the preprocessing of a checkpoint's folder.

    Returns:
        None when it cannot promise the pixels of transformers' own image processor: an unknown
        class (NaFlex's among them) or option, an invalid or missing file, or a torchvision that is
        installed, because transformers then prefers it to Pillow.
    """
    if has_torchvision():
        return None
    try:
        return _parse(_read_settings(folder), _read_object(folder / "config.json"))
    except (OSError, ValueError):
        return None


def _read_settings(folder: Path) -> dict[str, Any]:
    """Return the image processor's configuration, from the file that transformers prefers."""
    settings = _read_object(folder / "processor_config.json").get("image_processor")
    if settings is None:
        path = folder / "preprocessor_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
    return _object(settings)


def _read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no file."""
    return _object(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__} in the place of an object")
    return value


def _parse(settings: dict[str, Any], model_config: dict[str, Any]) -> ImageTransform:
    """Return the transform of an image processor's configuration.

    Raises:
        ValueError: when it is invalid, or has anything unknown.
    """
    name = _processor_name(settings, model_config)
    if name not in DEFAULTS:
        raise ValueError(f"image processor {name} is not supported")
    unknown = settings.keys() - DEFAULTS[name].keys() - IGNORED
    if unknown:
        raise ValueError(f"options {', '.join(sorted(unknown))} are not supported")
    # To transformers, null is an option that is not set, not one with its default.
    options = DEFAULTS[name] | settings
    if _flag(options, "do_pad") and options["pad_size"] is not None:
        raise ValueError("padding is not supported")
    size = _parse_size(options["size"], is_square=_flag(options, "default_to_square"))
    crop = _parse_size(options["crop_size"], is_square=True)
    if isinstance(crop, int):
        raise ValueError("crop_size needs a height and a width")
    sides = [side for sides in (size, crop) for side in _sides(sides)]
    if not sides:
        raise ValueError("neither size nor crop_size is set")
    scales, crops = _flag(options, "do_resize"), _flag(options, "do_center_crop")
    if (scales and size is None) or (crops and crop is None):
        raise ValueError("do_resize needs size, do_center_crop needs crop_size")
    return ImageTransform(
        resize=size if scales else None,
        resample=_parse_filter(options["resample"]) if scales else Image.Resampling.NEAREST,
        crop=crop if crops else None,
        levels=_normalised_levels(options),
        on_white=_flag(options, "do_convert_rgb"),
        image_size=max(sides),
    )


def _processor_name(settings: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
    """Return the class of image processor that transformers would take, without its backend."""
    if "pretrained_cfg" in model_config:
        raise ValueError("timm's checkpoints are not supported")
    name = settings.get("image_processor_type")
    if name is None:
        name = settings.get("feature_extractor_type")
        if isinstance(name, str):
            name = name.replace("FeatureExtractor", "ImageProcessor")
    if name is None and model_config.keys().isdisjoint({"image_processor_type", "auto_map"}):
        family = FAMILIES.get(str(model_config.get("model_type")))
        name = family and family.image_processor
    if not isinstance(name, str):
        raise ValueError("the image processor has no class")
    return name.removesuffix("Fast").removesuffix("Pil")


def _flag(options: Mapping[str, Any], name: str) -> bool:
    value = options[name]
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: neither true nor false")
    return bool(value)


def _parse_size(value: Any, *, is_square: bool) -> tuple[int, int] | int | None:
    """Return (height, width), or the length of the shorter edge.

    Args:
        value: integer, [height, width], object with these or with a shortest_edge, or None.
        is_square: True if an integer is both height and width.
    """
    if value is None:
        return None
    if isinstance(value, dict) and value.keys() == {"shortest_edge"}:
        return _parse_side(value["shortest_edge"])
    if isinstance(value, dict) and value.keys() == {"height", "width"}:
        value = [value["height"], value["width"]]
    if isinstance(value, list) and len(value) == 2:
        return _parse_side(value[0]), _parse_side(value[1])
    side = _parse_side(value)
    return (side, side) if is_square else side


def _parse_side(value: Any) -> int:
    if type(value) is not int or value <= 0:
        raise ValueError(f"side of {value!r}: not a positive integer")
    return value


def _sides(size: tuple[int, int] | int | None) -> tuple[int, ...]:
    if size is None:
        return ()
    return size if isinstance(size, tuple) else (size,)


def _parse_filter(value: Any) -> Image.Resampling:
    if type(value) is not int:
        raise ValueError(f"resample is {value!r}: not a number of Pillow's")
    return Image.Resampling(value)


def _normalised_levels(options: Mapping[str, Any]) -> Float32:
    """Return the (3, 256) float32 output for each value of a pixel, by channel.

    The operations and their dtypes are those of transformers on whole images.
    """
    rescales, normalises = _flag(options, "do_rescale"), _flag(options, "do_normalize")
    offset = "rescale_offset" in options and _flag(options, "rescale_offset")
    normalises_again = "include_top" in options and _flag(options, "include_top")
    if not (rescales or normalises or normalises_again):
        raise ValueError("pixels would stay integers")
    levels = np.tile(np.arange(256, dtype=np.float64), (3, 1))
    with np.errstate(all="ignore"):
        if rescales:
            levels *= _parse_number(options["rescale_factor"])
        values = levels.astype(np.float32)
        if rescales and offset:
            values -= 1
        if normalises:
            values = (values - _channels(options["image_mean"])) / _channels(options["image_std"])
        if normalises_again:
            values = values / _channels(options["image_std"])
    if not np.isfinite(values).all():
        raise ValueError("normalised pixels are not finite")
    return values


def _channels(value: Any) -> Float32:
    """Return (3, 1) float32 from a number for all channels or a list of three."""
    numbers = value if isinstance(value, list | tuple) else [value] * 3
    if len(numbers) != 3:
        raise ValueError(f"{len(numbers)} numbers for 3 channels")
    return np.array([[_parse_number(number)] for number in numbers], dtype=np.float32)


def _parse_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _scaled_size(size: tuple[int, int], resize: tuple[int, int] | int) -> tuple[int, int]:
    """Return (width, height) after scaling an image of (width, height).

    The longer edge is rounded down.
    """
    if isinstance(resize, tuple):
        height, width = resize
        return width, height
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize
