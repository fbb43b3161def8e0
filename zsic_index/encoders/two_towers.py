"""The base class of encoders on torch: batches, memory, dtype and normalisation."""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsic_index.embedding_arrays import Float32
from zsic_index.encoders.base import EncodedImages, EncodedPrompts, Pixels, Tokens
from zsic_index.errors import ImageError, LabelError, ModelError, is_out_of_memory
from zsic_index.records import ModelInfo
from zsic_index.scan.device import full_precision

logger = logging.getLogger("zsic_index")

TOKENS_PER_BATCH = 4_096
"""Maximum number of tokens, padding included, in one pass through the text tower."""


@dataclass(frozen=True, slots=True)
class TextInput:
    """Input format of a text tower.

    Attributes:
        length: number of tokens, special ones included, that a prompt is cut to.
        always_padded: True if every prompt is padded to ``length``; otherwise only to the longest
            prompt of its batch, which must not change its embedding.
        special: names of the special tokens, such as the end of the text, by id.
    """

    length: int
    always_padded: bool
    special: Mapping[int, str]


class TwoTowerEncoder(ABC):
    """An Encoder whose towers are torch modules.

    The towers compute in their own dtype on their device; their output is normalised in float32.
    """

    def __init__(
        self,
        info: ModelInfo,
        text: TextInput,
        image_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if not (0 < info.logit_scale < math.inf and math.isfinite(info.logit_bias)):
            raise ModelError(
                f"this model's logit scale is {info.logit_scale} and its bias {info.logit_bias}: "
                "they must be finite, the scale above 0; take another checkpoint"
            )
        self.info = info
        self._tokenising = threading.Lock()
        self.image_size = image_size
        self.device_type: str = device.type
        self._text = text
        self._device = device
        self._dtype = dtype
        self._warned_of_memory = False

    @abstractmethod
    def _tokenise(self, prompts: list[str]) -> list[list[int]]:
        """Return each prompt's token ids, special ones included, neither cut nor padded."""

    @abstractmethod
    def _text_inputs(self, prompts: list[str]) -> Mapping[str, Tensor]:
        """Return the inputs of the text tower: cut, padded, each with a leading batch axis."""

    @abstractmethod
    def _text_tower(self, **inputs: Tensor) -> Tensor:
        """Return the projected output of the text tower, (T, D)."""

    @abstractmethod
    def _image_tower(self, **inputs: Tensor) -> Tensor:
        """Return the projected output of the vision tower, (B, D)."""

    @abstractmethod
    def loaded_fingerprint(self) -> str | None:
        """Return the fingerprint of the text tower as loaded in memory; see Encoder."""

    @abstractmethod
    def preprocess(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into inputs of the vision tower; see Encoder."""

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Embed T prompts; see Encoder."""
        return self.encode_tokens(self.tokenise(prompts))

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens in a prompt; see Encoder."""
        return self._text.length

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return each prompt's token ids; see Encoder."""
        with self._tokenising:
            return self._tokenise(list(prompts))

    def tokenise(self, prompts: Sequence[str]) -> Tokens:
        """Turn T prompts into inputs of the text tower; see Encoder."""
        prompts = list(prompts)
        limit = self._text.length
        # Tokenizers keep their padding and truncation settings from one call to the next.
        with self._tokenising:
            token_ids = self._tokenise(prompts)
            self._refuse_special_tokens(prompts, token_ids)
            batches = [
                (rows, self._text_inputs([prompts[row] for row in rows]))
                for rows in self._batches([min(len(ids), limit) for ids in token_ids])
            ]
        truncated = (
            prompt for prompt, ids in zip(prompts, token_ids, strict=True) if len(ids) > limit
        )
        return Tokens(prompts, batches, tuple(truncated))

    def encode_tokens(self, tokens: Tokens) -> EncodedPrompts:
        """Embed tokenised prompts; see Encoder."""
        embeddings = np.empty((len(tokens.prompts), self.info.dim), dtype=np.float32)
        for rows, inputs in tokens.batches:
            for row, embedding in zip(rows, self._run(self._text_tower, inputs), strict=True):
                if embedding is None:
                    raise ModelError(
                        f"prompt {tokens.prompts[row][:80]!r} does not fit into the memory of "
                        f"{self._device}, even alone: use another device or dtype"
                    )
                embeddings[row] = embedding
        return EncodedPrompts(embeddings, tokens.truncated)

    def encode_images(self, images: Sequence[Pixels]) -> EncodedImages:
        """Embed B preprocessed images; see Encoder."""
        if not images:
            return EncodedImages(np.empty((0, self.info.dim), dtype=np.float32), {})
        return self.encode_pixels(
            {
                name: torch.from_numpy(np.stack([pixels[name] for pixels in images]))
                for name in images[0]
            }
        )

    def encode_pixels(self, inputs: Mapping[str, Tensor]) -> EncodedImages:
        """Embed B preprocessed images, given as tensors with a leading batch axis."""
        embedded, refused = [], {}
        for row, embedding in enumerate(self._run(self._image_tower, inputs)):
            if embedding is None:
                refused[row] = ImageError(
                    f"does not fit into the memory of {self._device}, even alone: "
                    "use another device or dtype"
                )
            elif not np.isfinite(embedding).all():
                refused[row] = ImageError(
                    f"its embedding is not finite in {self._dtype}: use another dtype"
                )
            else:
                embedded.append(embedding)
        return EncodedImages(
            np.array(embedded, dtype=np.float32).reshape(-1, self.info.dim), refused
        )

    def _run(
        self, tower: Callable[..., Tensor], inputs: Mapping[str, Tensor]
    ) -> list[Float32 | None]:
        """Run a tower on a batch and normalise; None for an input that exceeds the memory alone."""
        size = len(next(iter(inputs.values())))
        try:
            # Neither TF32 nor a caller's autocast must lower the precision of stored embeddings.
            with (
                torch.inference_mode(),
                full_precision(),
                torch.autocast(self._device.type, enabled=False),
            ):
                parts = {name: self._placed(part) for name, part in inputs.items()}
                return list(_unit(tower(**parts)))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # The error's frames still hold the batch, so retry outside of this block.
        if size == 1:
            return [None]
        if not self._warned_of_memory:
            self._warned_of_memory = True
            logger.warning(
                "a batch of %d does not fit into the memory of %s: retrying with halves of it",
                size,
                self._device,
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
        """Move an input to the device, and cast it to the towers' dtype if it is floating-point."""
        dtype = self._dtype if part.is_floating_point() else None
        if self._device.type == "cuda" and part.device.type == "cpu":
            # From pinned memory the copy is about three times as fast, and does not wait.
            return part.pin_memory().to(self._device, dtype, non_blocking=True)
        return part.to(self._device, dtype)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield batches of rows by ascending length, of at most TOKENS_PER_BATCH padded tokens."""
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            # Rows come shortest first, so this one determines the padded length.
            padded = self._text.length if self._text.always_padded else lengths[row]
            if batch and (len(batch) + 1) * padded > TOKENS_PER_BATCH:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _refuse_special_tokens(self, prompts: list[str], token_ids: list[list[int]]) -> None:
        """Raise a LabelError if a prompt has more special tokens than an empty prompt."""
        special = self._text.special
        (empty,) = self._tokenise([""])
        expected = sum(token in special for token in empty)
        for prompt, ids in zip(prompts, token_ids, strict=True):
            tokens = [token for token in ids if token in special]
            if len(tokens) > expected:
                # Those that every prompt has are at its start and end.
                inner = next((t for t in tokens if t not in empty), tokens[len(tokens) // 2])
                raise LabelError(
                    f"prompt {prompt[:80]!r} holds {special[inner]!r}, a special token of this "
                    "model's tokenizer, which would end the text there: rename the label"
                )


def select_device(name: str) -> torch.device:
    """Return a device after checking that it exists; ``auto`` is a GPU if there is one.

    Raises:
        ModelError: when there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Only an allocation shows whether the device exists.
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"device {name!r} cannot be used ({reason}): use auto, cpu, cuda, cuda:N or mps"
        ) from error
    return device


def exponentiate(logit_scale: float) -> float:
    """Return the exponential of a logit scale, in float32 as the models compute it."""
    return float(torch.tensor(logit_scale).exp())


def _unit(features: Tensor) -> Float32:
    """Return (B, D) float32 rows of norm 1."""
    features = features.float()
    unit = features / features.norm(p=2, dim=-1, keepdim=True)
    result: Float32 = unit.cpu().numpy()
    return result
