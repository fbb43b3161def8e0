"""Encoders from checkpoints of transformers with two towers and one scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForZeroShotImageClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from zsic_index.encoders.base import PIXEL_VALUES, Pixels, Preprocessor
from zsic_index.encoders.checkpoint import Checkpoint, TransformersFiles
from zsic_index.encoders.families import Family, find_family
from zsic_index.encoders.image_transform import ImageTransform, load_preprocessor
from zsic_index.encoders.tensors import read_scalars
from zsic_index.encoders.transformers.adapters import (
    WITHOUT_ADAPTER,
    apply_adapter,
    has_adapter,
)
from zsic_index.encoders.transformers.fingerprint import compute_fingerprint
from zsic_index.encoders.two_towers import (
    TextInput,
    TwoTowerEncoder,
    exponentiate,
    select_device,
)
from zsic_index.errors import ModelError, first_line
from zsic_index.records import ModelInfo

_FROM_FOLDER = {"local_files_only": True, "trust_remote_code": False}


class TransformersEncoder(TwoTowerEncoder):
    """An Encoder with transformers' own model and tokenizer, and its image processor's pixels.

    Args:
        model: zero-shot image classification model of transformers.
        tokenizer: tokenizer of the model.
        preprocessor: preprocessing of images for the model.
        family: differences from CLIP.
        scalars: logit scale, logit bias or temperature by name, which replace those of the model,
            rounded to its dtype.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocessor: Preprocessor,
        family: Family,
        scalars: Mapping[str, float] | None = None,
    ) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._preprocessor = preprocessor
        info = ModelInfo(
            model_type=model.config.model_type,
            dim=_dim(model),
            **_scale_and_bias(family, _model_scalars(model) | dict(scalars or {})),
            activation=family.activation,
        )
        text = TextInput(
            length=family.text_length or _max_tokens(model, tokenizer, family),
            always_padded=family.text_length is not None,
            special=_special_tokens(tokenizer),
        )
        super().__init__(info, text, preprocessor.image_size, model.device, model.dtype)
        self._levels: Tensor | None = None
        if model.device.type != "cpu":
            self.normalise_on_device()

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, files: TransformersFiles, *, device: str
    ) -> TransformersEncoder:
        """Load an encoder from a checkpoint's folder, offline; see ``encoders.load``."""
        target = select_device(device)
        folder, dtype = str(files.folder), getattr(torch, checkpoint.dtype)
        try:
            # First, because it refuses pickles in plain words.
            scalars = read_scalars(files.weights)
            with _quiet_transformers():
                model, loading = AutoModelForZeroShotImageClassification.from_pretrained(
                    folder,
                    dtype=dtype,
                    # A folder is given, so transformers never converts pickles in the background.
                    use_safetensors=files.weights[0].suffix == ".safetensors",
                    weights_only=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, by name
                    **(WITHOUT_ADAPTER if has_adapter(files.folder) else {}),
                    **_FROM_FOLDER,
                )
                tokenizer = AutoTokenizer.from_pretrained(folder, **_FROM_FOLDER)
                preprocessor = load_preprocessor(files.folder)
        except Exception as error:
            # For an unusable checkpoint transformers raises anything from OSError to KeyError.
            reason = first_line(error)
            raise ModelError(
                f"model {checkpoint.model_id}: cannot be loaded from {folder}: {reason[:250]}"
            ) from error
        _check_weights(checkpoint.model_id, type(model).__name__, loading)
        if files.adapter is not None:
            with _quiet_transformers():
                apply_adapter(checkpoint.model_id, model, files.adapter, dtype)
        _check_vocabulary(checkpoint.model_id, tokenizer)
        model = model.to(target).eval()
        return cls(model, tokenizer, preprocessor, files.family, scalars)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, image_processor: Any) -> TransformersEncoder:
        """Return the encoder of a model in memory, on its device and in its dtype.

        Raises:
            ModelError: when its family is not supported.
        """
        # Most checkpoints need none of transformers' image processors, which are slow to import.
        from zsic_index.encoders.transformers.image_processor import ImageProcessor

        family = find_family(model.config.model_type, str(model.name_or_path))
        return cls(model, tokenizer, ImageProcessor(image_processor), family)

    def loaded_fingerprint(self) -> str:
        """Return the fingerprint of the text tower as loaded in memory; see Encoder."""
        return compute_fingerprint(self.model, self._tokenizer)

    def preprocess(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into inputs of the vision tower; see Encoder.

        For a GPU, pixels are copied as bytes where possible, and normalised there: by a table, so
        that the result is the same, bit for bit.
        """
        if self._levels is not None and isinstance(self._preprocessor, ImageTransform):
            return self._preprocessor.without_levels(image)
        return self._preprocessor(image)

    def _tokenise(self, prompts: list[str]) -> list[list[int]]:
        inputs = self._tokenizer(prompts, padding=False, truncation=False, verbose=False)
        token_ids: list[list[int]] = inputs["input_ids"]
        return token_ids

    def _text_inputs(self, prompts: list[str]) -> Mapping[str, Tensor]:
        inputs: Mapping[str, Tensor] = self._tokenizer(
            prompts,
            padding="max_length" if self._text.always_padded else True,
            max_length=self._text.length,
            truncation=True,
            return_tensors="pt",
        )
        return inputs

    def _text_tower(self, **inputs: Tensor) -> Tensor:
        return _features(self.model.get_text_features(**inputs))

    def _image_tower(self, **inputs: Tensor) -> Tensor:
        pixels = inputs.get(PIXEL_VALUES)
        if pixels is not None and pixels.dtype == torch.uint8:
            inputs = {**inputs, PIXEL_VALUES: self._normalise(pixels)}
        return self.image_features(**inputs)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Return (B, 3, H, W) pixels in the tower's dtype from (B, H, W, 3) bytes."""
        assert self._levels is not None, "bytes come from preprocess alone"
        bands = [levels[pixels[..., at].int()] for at, levels in enumerate(self._levels)]
        return torch.stack(bands, dim=1)

    def normalise_on_device(self) -> None:
        """Let ``preprocess`` return bytes, unless transformers preprocesses the images."""
        if isinstance(self._preprocessor, ImageTransform):
            levels = torch.from_numpy(self._preprocessor.levels)
            self._levels = levels.to(self.model.device, self.model.dtype)

    def image_features(self, **inputs: Tensor) -> Tensor:
        """Return the projected output of the vision tower, (B, D), not normalised."""
        return _features(self.model.get_image_features(**inputs))


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence progress bars and warnings of transformers while a checkpoint is loaded."""
    logs: Any = transformers_logging
    has_bars, level = logs.is_progress_bar_enabled(), logs.get_verbosity()
    logs.disable_progress_bar()
    logs.set_verbosity_error()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if has_bars:
            logs.enable_progress_bar()


def _check_weights(model_id: str, kind: str, loading: Mapping[str, Any]) -> None:
    """Raise a ModelError if transformers filled a weight with random numbers."""
    for name, *shapes in sorted(loading["mismatched_keys"])[:1]:
        stored, expected = (" × ".join(map(str, shape)) for shape in shapes)
        raise ModelError(
            f"model {model_id}: {name} is {stored} in its files, but {expected} by its "
            "config.json: take the configuration that was saved with the weights"
        )
    # Towers that do not train never read how many batches a normalisation has seen.
    missing = sorted(
        name for name in loading["missing_keys"] if not name.endswith("num_batches_tracked")
    )
    if missing:
        raise ModelError(
            f"model {model_id}: its files lack {len(missing)} of the weights of {kind}, such as "
            f"{missing[0]}: take a checkpoint that was saved as such a model"
        )


def _check_vocabulary(model_id: str, tokenizer: Any) -> None:
    """Raise a ModelError if a tokenizer knows only special tokens: all prompts would be alike."""
    if tokenizer.vocab_size <= len(set(tokenizer.all_special_ids)):
        raise ModelError(
            f"model {model_id}: its {type(tokenizer).__name__} has no vocabulary in "
            "the checkpoint: add the files that tokenizer.save_pretrained(...) writes"
        )


def _features(output: Any) -> Tensor:
    """Return the projected output of a tower: itself in transformers 4, an attribute in 5."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


def _model_scalars(model: Any) -> dict[str, float]:
    names = ("logit_scale", "logit_bias", "temperature")
    tensors = {name: getattr(model, name, None) for name in names}
    return {name: float(value.detach()) for name, value in tensors.items() if value is not None}


def _scale_and_bias(family: Family, scalars: Mapping[str, float]) -> dict[str, float]:
    if family.divides_by_temperature:
        return {"logit_scale": 1 / scalars["temperature"], "logit_bias": 0.0}
    scale = exponentiate(scalars["logit_scale"])
    return {"logit_scale": scale, "logit_bias": scalars.get("logit_bias", 0.0)}


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the names of special tokens by id, except the unknown token unless it ends a text."""
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id}
    pairs = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    return {
        token: name for token, name in pairs if token != tokenizer.unk_token_id or token in ends
    }


def _max_tokens(model: Any, tokenizer: Any, family: Family) -> int:
    """Return the number of positions of the text tower, else the tokenizer's limit."""
    config = model.config.text_config
    positions = getattr(config, "max_position_embeddings", None)
    if not positions:
        return int(tokenizer.model_max_length)
    return int(positions) - (config.pad_token_id + 1 if family.positions_follow_padding else 0)


def _dim(model: Any) -> int:
    """Return the length of the model's embeddings."""
    config = model.config
    for name in ("projection_dim", "projection_size"):
        for owner in (config, config.text_config):
            value = getattr(owner, name, None)
            if value:
                return int(value)
    return int(config.text_config.hidden_size)
