"""Checkpoints of transformers with a text tower, a vision tower and one scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from zsic_index.encoders.base import Pixels
from zsic_index.encoders.checkpoint import Checkpoint, TransformersFiles
from zsic_index.encoders.families import Family
from zsic_index.encoders.transformers import fingerprint
from zsic_index.encoders.transformers.files import family_of
from zsic_index.encoders.two_towers import (
    TextInput,
    TwoTowerEncoder,
    device_of,
    exponentiated,
    scalars_in,
)
from zsic_index.errors import ModelError
from zsic_index.records import ModelInfo

_FROM_FOLDER = {"local_files_only": True, "trust_remote_code": False}


class TransformersEncoder(TwoTowerEncoder):
    """An Encoder on transformers' own model, tokenizer and image processor.

    Args:
        model: one of transformers' zero-shot image classification models.
        tokenizer: its tokenizer.
        image_processor: its image processor.
        family: how to treat it.
        scalars: scale, bias or temperature by name, where they are known better than the model's
            dtype can hold them.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        family: Family,
        scalars: Mapping[str, float] | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        info = ModelInfo(
            model_type=model.config.model_type,
            dim=_dim(model),
            **_scale_and_bias(family, _scalars_of(model) | dict(scalars or {})),
            activation=family.activation,
        )
        text = TextInput(
            length=family.text_length or _positions(model, tokenizer, family),
            always_padded=family.text_length is not None,
            special=_special(tokenizer),
        )
        super().__init__(info, text, _image_size(image_processor), model.device, model.dtype)

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, files: TransformersFiles, *, device: str
    ) -> TransformersEncoder:
        """Load from a checkpoint's folder alone; see ``encoders.load``."""
        target = device_of(device)
        folder = str(files.folder)
        try:
            with _quiet():
                model, loading = AutoModelForZeroShotImageClassification.from_pretrained(
                    folder,
                    dtype=getattr(torch, checkpoint.dtype),
                    use_safetensors=True,
                    output_loading_info=True,
                    **_FROM_FOLDER,
                )
                tokenizer = AutoTokenizer.from_pretrained(folder, **_FROM_FOLDER)
                processor: Any = AutoImageProcessor
                processor = processor.from_pretrained(folder, **_FROM_FOLDER)
        except Exception as error:
            # transformers raises anything from OSError to KeyError on a checkpoint it cannot use.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"model {checkpoint.model_id}: cannot be loaded from {folder}: {reason}"
            ) from error
        missing = sorted(loading["missing_keys"])
        if missing:
            # transformers fills them with random numbers and goes on.
            raise ModelError(
                f"model {checkpoint.model_id}: its files lack {len(missing)} of the weights of a "
                f"{type(model).__name__}, such as {missing[0]}: take a checkpoint that was saved "
                "as such a model"
            )
        model = model.to(target).eval()
        return cls(model, tokenizer, processor, files.family, scalars_in(files.weights))

    @classmethod
    def of(cls, model: Any, tokenizer: Any, image_processor: Any) -> TransformersEncoder:
        """Return the encoder that a loaded model is, where it is and in its dtype.

        Raises:
            ModelError: when its family is not supported.
        """
        family = family_of(model.config.model_type, str(model.name_or_path))
        return cls(model, tokenizer, image_processor, family)

    def loaded_fingerprint(self) -> str:
        """Return the hash of what prompt embeddings depend on, as it is in memory; see Encoder."""
        return fingerprint.fingerprint_of(self._model, self._tokenizer)

    def preprocess(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into the vision tower's input; see Encoder."""
        # One image at a time, as the pipeline does it.
        inputs = self._image_processor(images=[image], return_tensors="np")
        return {name: values[0] for name, values in inputs.items()}

    def _tokenise(self, prompts: list[str]) -> list[list[int]]:
        ids = self._tokenizer(prompts, padding=False, truncation=False, verbose=False)
        found: list[list[int]] = ids["input_ids"]
        return found

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
        return _features(self._model.get_text_features(**inputs))

    def _image_tower(self, **inputs: Tensor) -> Tensor:
        return _features(self._model.get_image_features(**inputs))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the bars and notes that transformers prints while it loads a checkpoint."""
    notes: Any = transformers_logging
    bars, level = notes.is_progress_bar_enabled(), notes.get_verbosity()
    notes.disable_progress_bar()
    notes.set_verbosity_error()
    try:
        yield
    finally:
        notes.set_verbosity(level)
        if bars:
            notes.enable_progress_bar()


def _features(output: Any) -> Tensor:
    # transformers 4 returns the tensor itself, 5 an object with it.
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


def _scalars_of(model: Any) -> dict[str, float]:
    names = ("logit_scale", "logit_bias", "temperature")
    found = {name: getattr(model, name, None) for name in names}
    return {name: float(value.detach()) for name, value in found.items() if value is not None}


def _scale_and_bias(family: Family, scalars: Mapping[str, float]) -> dict[str, float]:
    if family.divides_by_temperature:
        return {"logit_scale": 1 / scalars["temperature"], "logit_bias": 0.0}
    scale = exponentiated(scalars["logit_scale"])
    return {"logit_scale": scale, "logit_bias": scalars.get("logit_bias", 0.0)}


def _special(tokenizer: Any) -> dict[int, str]:
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id}
    pairs = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    # What is unknown is no more than that, unless it is written as the end of the text.
    return {
        token: name for token, name in pairs if token != tokenizer.unk_token_id or token in ends
    }


def _positions(model: Any, tokenizer: Any, family: Family) -> int:
    """Return how many tokens the text tower takes; the pipeline cuts nothing before that."""
    config = model.config.text_config
    positions = getattr(config, "max_position_embeddings", None)
    if not positions:
        return int(tokenizer.model_max_length)
    return int(positions) - (config.pad_token_id + 1 if family.positions_follow_padding else 0)


def _image_size(processor: Any) -> int:
    """Return the longest side that an image is scaled or cut to."""
    if hasattr(processor, "max_num_patches"):  # as many patches as fit, in the image's shape
        side: float = processor.patch_size * math.sqrt(processor.max_num_patches)
        return math.ceil(side)
    sides = [dict(getattr(processor, name, None) or {}) for name in ("size", "crop_size")]
    return max(int(side) for found in sides for side in found.values() if side)


def _dim(model: Any) -> int:
    config = model.config
    for name in ("projection_dim", "projection_size"):
        for owner in (config, config.text_config):
            value = getattr(owner, name, None)
            if value:
                return int(value)
    return int(config.text_config.hidden_size)
