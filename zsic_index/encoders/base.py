"""What the rest of the program asks of an encoder."""

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
"""The vision tower's inputs for one image, by argument name; without a batch axis."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """T prompts as the text tower takes them.

    Attributes:
        prompts: the prompts themselves.
        batches: rows of them, shortest first, and the inputs of these rows by argument name.
        truncated: the prompts that were over the token limit and were cut.
    """

    prompts: list[str]
    batches: list[tuple[list[int], Mapping[str, Any]]]
    truncated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """What the text tower made of T prompts.

    Attributes:
        embeddings: (T, D) float32, unit norm, in the order of the prompts.
        truncated: the prompts that were over the token limit and were cut.
    """

    embeddings: Float32
    truncated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """What the vision tower made of B images.

    Attributes:
        embeddings: (A, D) float32, unit norm: those that were embedded, in the order of the images.
        refused: why, by the place among the B, for the B - A that were not.
    """

    embeddings: Float32
    refused: dict[int, ImageError]


class Encoder(Protocol):
    """The text tower and the vision tower of one checkpoint."""

    @property
    def info(self) -> ModelInfo:
        """What the checkpoint says about itself."""

    @property
    def device_type(self) -> str:
        """What the towers are on: ``cpu``, ``cuda`` or ``mps``."""

    @property
    def image_size(self) -> int:
        """Pixels of the shorter side that ``preprocess`` scales an image to."""

    def loaded_fingerprint(self) -> str | None:
        """Return the hash of what prompt embeddings depend on, as it is in memory, if there is one.

        Reads all of the text tower's weights.
        """

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Embed T prompts: ``tokenise``, then ``encode_tokens``."""

    @property
    def max_tokens(self) -> int:
        """How many tokens of a prompt the text tower takes, special ones included."""

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return each prompt's token ids, special ones included, neither cut nor padded."""

    def tokenise(self, prompts: Sequence[str]) -> Tokens:
        """Turn T prompts into the text tower's inputs; may be called from another thread.

        Raises:
            LabelError: when a prompt holds one of the tokenizer's special tokens, which would
                change where the tower reads its result.
        """

    def encode_tokens(self, tokens: Tokens) -> EncodedPrompts:
        """Embed tokenised prompts; an embedding does not depend on the prompts beside it.

        Raises:
            ModelError: when a single prompt does not fit into the device's memory.
        """

    def preprocess(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into the vision tower's input; may be called from several threads."""

    def encode_images(self, images: Sequence[Pixels]) -> EncodedImages:
        """Embed B preprocessed images; one that does not fit into memory by itself is refused."""
