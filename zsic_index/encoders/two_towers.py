"""Checkpoints of transformers with a text tower, a vision tower and one scale."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from zsic_index.encoders.base import EncodedImages, EncodedPrompts, Pixels
from zsic_index.encoders.checkpoint import Checkpoint
from zsic_index.encoders.families import Family
from zsic_index.errors import ImageError, LabelError, ModelError
from zsic_index.records import ModelInfo
from zsic_index.scoring import Float32

logger = logging.getLogger("zsic_index")

TOKENS_PER_BATCH = 4_096
"""Tokens, padding included, in one pass through the text tower."""


class TwoTowerEncoder:
    """An Encoder on transformers' own model, tokenizer and image processor.

    The towers compute in the model's dtype on its device; what comes out is normalised in float32.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        family: Family,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._family = family
        self._told_of_memory = False
        self._text_length = family.text_length or _text_limit(model, tokenizer, family)
        bias = getattr(model, "logit_bias", None)
        self.info = ModelInfo(
            model_type=model.config.model_type,
            dim=_dim(model),
            logit_scale=_scale(model, family),
            logit_bias=0.0 if bias is None else float(bias.detach()),
            activation=family.activation,
        )

    @classmethod
    def load(cls, checkpoint: Checkpoint, *, device: str) -> TwoTowerEncoder:
        """Load from a checkpoint's folder alone; see ``encoders.load``."""
        target = _device(device)
        folder = str(checkpoint.folder)
        try:
            with _quiet():
                model, loading = AutoModelForZeroShotImageClassification.from_pretrained(
                    folder,
                    dtype=getattr(torch, checkpoint.dtype),
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                )
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                processor: Any = AutoImageProcessor
                processor = processor.from_pretrained(folder, local_files_only=True)
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
        return cls(model.to(target).eval(), tokenizer, processor, checkpoint.family)

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Embed T prompts; see Encoder."""
        self._refuse_special_tokens(prompts)
        ids = self._tokenizer(list(prompts), truncation=False, verbose=False)["input_ids"]
        truncated = tuple(
            prompt
            for prompt, tokens in zip(prompts, ids, strict=True)
            if len(tokens) > self._text_length
        )
        embeddings = np.empty((len(prompts), self.info.dim), dtype=np.float32)
        for rows in self._batches([min(len(tokens), self._text_length) for tokens in ids]):
            inputs = self._tokenizer(
                [prompts[row] for row in rows],
                padding=True if self._family.text_length is None else "max_length",
                max_length=self._text_length,
                truncation=True,
                return_tensors="pt",
            )
            for row, embedding in zip(
                rows, self._run(self._model.get_text_features, inputs), strict=True
            ):
                if embedding is None:
                    raise ModelError(
                        f"prompt {prompts[row][:80]!r} does not fit into the memory of "
                        f"{self._model.device}, even alone: use another device or dtype"
                    )
                embeddings[row] = embedding
        return EncodedPrompts(embeddings, truncated)

    def preprocess(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into the vision tower's input; see Encoder."""
        # One image at a time, as the pipeline does it.
        inputs = self._image_processor(images=[image], return_tensors="np")
        return {name: values[0] for name, values in inputs.items()}

    def encode_images(self, images: Sequence[Pixels]) -> EncodedImages:
        """Embed B preprocessed images; see Encoder."""
        if not images:
            return EncodedImages(np.empty((0, self.info.dim), dtype=np.float32), {})
        inputs = {
            name: torch.from_numpy(np.stack([pixels[name] for pixels in images]))
            for name in images[0]
        }
        embedded, refused = [], {}
        for row, embedding in enumerate(self._run(self._model.get_image_features, inputs)):
            if embedding is None:
                refused[row] = ImageError(
                    f"does not fit into the memory of {self._model.device}, even alone: "
                    "use another device or dtype"
                )
            elif not np.isfinite(embedding).all():
                refused[row] = ImageError(
                    f"its embedding is not finite in {self._model.dtype}: use another dtype"
                )
            else:
                embedded.append(embedding)
        return EncodedImages(
            np.array(embedded, dtype=np.float32).reshape(-1, self.info.dim), refused
        )

    def _run(self, tower: Callable[..., Any], inputs: Mapping[str, Tensor]) -> list[Float32 | None]:
        """Run a tower on a batch and normalise; None for an input that is too large by itself."""
        size = len(next(iter(inputs.values())))
        try:
            with torch.inference_mode():
                parts = {name: self._placed(part) for name, part in inputs.items()}
                return list(_unit(tower(**parts)))
        except torch.OutOfMemoryError:
            # Not here: the error's frames still hold the batch.
            pass
        if size == 1:
            return [None]
        if not self._told_of_memory:
            self._told_of_memory = True
            logger.warning(
                "a batch of %d does not fit into the memory of %s: going on with halves of it",
                size,
                self._model.device,
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        middle = size // 2
        return [
            embedding
            for half in (slice(middle), slice(middle, None))
            for embedding in self._run(tower, {name: part[half] for name, part in inputs.items()})
        ]

    def _placed(self, part: Tensor) -> Tensor:
        """Move an input to the model, in its dtype if it is a floating-point one."""
        dtype = self._model.dtype if part.is_floating_point() else None
        return part.to(self._model.device, dtype)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield rows sorted by length, as many as TOKENS_PER_BATCH takes once they are padded."""
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            # The rows come shortest first, so this one gives the padded length.
            padded = lengths[row] if self._family.text_length is None else self._text_length
            if batch and (len(batch) + 1) * padded > TOKENS_PER_BATCH:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _refuse_special_tokens(self, prompts: Sequence[str]) -> None:
        special = [token for token in self._tokenizer.all_special_tokens if token]
        for prompt in prompts:
            for token in special:
                if token in prompt:
                    raise LabelError(
                        f"prompt {prompt[:80]!r} holds {token!r}, a special token of this model's "
                        "tokenizer, which would end the text there: rename the label"
                    )


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


def _unit(output: Any) -> Float32:
    """Return the tower's projected output as (B, D) float32 rows of norm 1."""
    # transformers 4 returns the tensor itself, 5 an object with it.
    features = output if isinstance(output, torch.Tensor) else output.pooler_output
    features = features.float()
    unit = features / features.norm(p=2, dim=-1, keepdim=True)
    result: Float32 = unit.cpu().numpy()
    return result


def _scale(model: Any, family: Family) -> float:
    if family.divides_by_temperature:
        return 1 / float(model.temperature.detach())
    return float(model.logit_scale.detach().float().exp())


def _text_limit(model: Any, tokenizer: Any, family: Family) -> int:
    config = model.config.text_config
    limits = []
    if getattr(config, "max_position_embeddings", None):
        taken = config.pad_token_id + 1 if family.positions_follow_padding else 0
        limits.append(config.max_position_embeddings - taken)
    # A tokenizer without a limit says so with a huge number.
    limits += [tokenizer.model_max_length] if tokenizer.model_max_length < 1_000_000 else []
    return int(min(limits))


def _dim(model: Any) -> int:
    config = model.config
    for name in ("projection_dim", "projection_size"):
        for owner in (config, config.text_config):
            value = getattr(owner, name, None)
            if value:
                return int(value)
    return int(config.text_config.hidden_size)


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        # The allocation finds out whether the device is really there.
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"device {name!r} cannot be used ({reason}): use auto, cpu, cuda, cuda:N or mps"
        ) from error
    return device
