"""The Encoder protocol, and the values that go into and come out of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt
from PIL import Image

from zsic_index.embedding_arrays import Float32
from zsic_index.errors import ImageError
from zsic_index.records import ModelInfo

Pixels = dict[str, npt.NDArray[Any]]
"""Inputs of the vision tower for one image, by argument name; without a batch axis."""

PIXEL_VALUES = "pixel_values"
"""Name of the only input of most vision towers: (3, H, W) float32."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """T prompts, tokenised and batched for the text tower.

    Attributes:
        prompts: the prompts.
        batches: pairs of prompt positions and their inputs by argument name, shortest first.
        truncated: prompts that were cut because they exceed the token limit.
    """

    prompts: list[str]
    batches: list[tuple[list[int], Mapping[str, Any]]]
    truncated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """Embeddings of T prompts.

    Attributes:
        embeddings: (T, D) float32, unit norm, in the order of the prompts.
        truncated: prompts that were cut because they exceed the token limit.
    """

    embeddings: Float32
    truncated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Embeddings of B images, except those that were refused.

    Attributes:
        embeddings: (A, D) float32, unit norm, of the A images not refused, in their order.
        refused: errors of the other B - A images, by position among the B.
    """

    embeddings: Float32
    refused: dict[int, ImageError]


class Preprocessor(Protocol):
    """Function from one RGB image to inputs of the vision tower; may be called from any thread."""

    @property
    def image_size(self) -> int:
        """Longest side that an image is scaled or cut to, in pixels."""

    def __call__(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into inputs of the vision tower."""


class VisionTower(Protocol):
    """The vision tower of one checkpoint, and the preprocessing of its images."""

    @property
    def device_type(self) -> str:
        """Type of the device of the tower: ``cpu``, ``cuda`` or ``mps``."""

    @property
    def image_size(self) -> int:
        """Side of the vision tower's input in pixels; the longest one if it is not a square."""

    def preprocess(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into inputs of the vision tower; may be called from any thread."""

    def encode_images(self, images: Sequence[Pixels]) -> EncodedImages:
        """Embed B preprocessed images; one that exceeds the device's memory alone is refused."""


class Encoder(VisionTower, Protocol):
    """The text tower and the vision tower of one checkpoint.

    The conformance suite in ``tests/encoders`` checks every implementation: embeddings have shape
    (inputs, D), dtype float32 and unit norm, keep the order of the inputs, and do not depend on how
    the inputs are batched.
    """

    @property
    def info(self) -> ModelInfo:
        """Dimensions, logit scale and bias, and activation of the checkpoint."""

    def loaded_fingerprint(self) -> str | None:
        """Return the fingerprint of the text tower as loaded in memory, if it can be computed.

        Reads all weights of the text tower.
        """

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Embed T prompts: ``tokenise``, then ``encode_tokens``."""

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens in a prompt, special tokens included."""

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return each prompt's token ids, special tokens included, neither cut nor padded."""

    def tokenise(self, prompts: Sequence[str]) -> Tokens:
        """Turn T prompts into inputs of the text tower; may be called from any thread.

        Raises:
            LabelError: when a prompt contains one of the tokenizer's special tokens, which would
                change the position that the text tower reads its output from.
        """

    def encode_tokens(self, tokens: Tokens) -> EncodedPrompts:
        """Embed tokenised prompts; an embedding does not depend on the other prompts.

        Raises:
            ModelError: when a single prompt does not fit into the device's memory.
        """
