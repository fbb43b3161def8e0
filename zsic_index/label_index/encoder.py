"""Embeddings of images and labels for one index, by the model that it was built with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np

from zsic_index import encoders, taxonomy
from zsic_index.embedding_arrays import Float32
from zsic_index.embeddings.images import ImageEmbedder
from zsic_index.embeddings.labels import bind_templates, fetch_embeddings
from zsic_index.encoders import Checkpoint, EncodedPrompts
from zsic_index.encoders.onnx.files import TowerFiles
from zsic_index.encoders.runtime import choose_tower
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import ImageError, ModelError
from zsic_index.images.opening import LIMITS, Decode, ImageLimits, ImageSource
from zsic_index.label_index.arguments import imported_fingerprint
from zsic_index.records import EncoderRecord, IndexInfo, Runtime
from zsic_index.store import Store

Result = TypeVar("Result")


class IndexEncoder:
    """Embeds images and labels as an index needs them; the model is loaded at first use.

    Args:
        store: where embeddings are looked up and kept.
        info: the index.
        device: where the towers run.
        runtime: library that runs the vision tower.
        decode: how JPEGs are decoded.
        keep_images: whether image embeddings are looked up and kept in the store.
    """

    def __init__(
        self,
        store: Store,
        info: IndexInfo,
        *,
        device: str,
        runtime: Runtime,
        decode: Decode,
        keep_images: bool,
    ) -> None:
        self._store = store
        self._info = info
        self._device = device
        self._runtime: Runtime = runtime
        self._decode: Decode = decode
        self._keep_images = keep_images

    def with_info(self, info: IndexInfo) -> IndexEncoder:
        """Return one for the same model, loaded once for both, and another index."""
        _ = self.source
        other = copy.copy(self)
        other._info = info
        return other

    @cached_property
    def source(self) -> EncoderSource:
        """The lazily loaded encoder.

        Raises:
            ModelError: when the index has no model, or it has changed since.
        """
        tower = self._tower
        if tower is None:
            return EncoderSource.of(self.checkpoint, device=self._device)
        info = self._info
        # With a tower the checkpoint is found, and hashed, only when labels have to be encoded.
        return EncoderSource(
            fingerprint=tower.record.checkpoint_fingerprint,
            model_id=str(info.model_id),
            revision=info.revision,
            dtype=info.dtype,
            load=lambda: encoders.load(self.checkpoint, device=self._device),
            load_tower=lambda: encoders.load_tower(tower),
        )

    def share(self, source: EncoderSource) -> None:
        """Use another index's encoder instead of loading the same checkpoint again."""
        assert source.fingerprint == self.source.fingerprint, "of another checkpoint"
        self.source = source

    @property
    def image_fingerprint(self) -> str:
        """Hash of everything that image embeddings depend on, except the decode mode.

        Raises:
            ModelError: see ``source``.
        """
        if self._tower is not None:
            return self._tower.image_fingerprint
        return self.checkpoint.image_fingerprint

    @property
    def runtime(self) -> Runtime:
        """Runtime of the vision tower, chosen at the first use: never ``auto``.

        Raises:
            ModelError: when the runtime that was asked for cannot be used.
        """
        if self._tower is None:
            return "torch"
        return "onnx" if self._tower.record.precision == "float32" else "onnx-int8"

    def loaded_fingerprint(self) -> str | None:
        """Return the fingerprint of the encoder in memory, where the store has it."""
        record = self._store.encoders.find(self._info.encoder_fingerprint)
        return None if record is None else record.loaded_fingerprint

    def image_embedder(self, limits: ImageLimits = LIMITS) -> ImageEmbedder:
        """Return an embedder of images for this index.

        Args:
            limits: formats and sizes that are accepted.

        Raises:
            ModelError: see ``source``.
        """
        info = self._info
        record = EncoderRecord(
            self.image_fingerprint,
            info.model_id,
            info.revision,
            info.dtype,
            info.dim,
            info.logit_scale,
            info.logit_bias,
            info.activation,
        )
        return ImageEmbedder(
            self.source,
            record,
            decode=self._decode,
            store=self._store if self._keep_images else None,
            limits=limits,
        )

    def embed_images(self, images: Iterable[ImageSource]) -> Float32:
        """Return (B, D) float32 unit-norm embeddings of images.

        Raises:
            ImageError: when an image is refused.
            ModelError: see ``source``.
        """
        blocks = [np.empty((0, self._info.dim), dtype=np.float32)]
        for errors, embeddings in self.image_embedder().embed(images):
            for error in errors:
                if error:
                    raise error
            blocks.append(embeddings)
        return np.concatenate(blocks)

    def stream(
        self, images: Iterable[ImageSource], compute: Callable[[Float32], Sequence[Result]]
    ) -> Iterator[Result | ImageError]:
        """Yield a result for each image in order, or the ImageError that says why it was refused.

        Args:
            images: any number of images.
            compute: from (B, D) float32 unit-norm image embeddings to B results.
        """
        for errors, embeddings in self.image_embedder().embed(images):
            results = iter(compute(embeddings))
            for error in errors:
                yield error or next(results)

    def stream_embeddings(self, images: Iterable[ImageSource]) -> Iterator[Float32 | ImageError]:
        """Yield for each image its (D,) float32 unit-norm embedding, or why it was refused."""
        return self.stream(images, list)

    def encode_labels(self, labels: Sequence[str]) -> Float32:
        """Return (n, D) float32 unit-norm embeddings of labels from outside the index.

        They are encoded with the index's templates, and kept in the store.

        Raises:
            LabelError: for a label that the model cannot encode.
            ModelError: when the index has no model or templates.
        """
        labels = taxonomy.collect(labels).labels
        self.check_encodes(labels[0])
        prompts_of = bind_templates(labels, self._info.templates)
        return fetch_embeddings(self._store, self.source, labels, prompts_of)

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Encode prompts as they are: without a template, and without keeping anything.

        Raises:
            LabelError: for a prompt that the model cannot encode.
            ModelError: when the index has no model.
        """
        return self.source.encoder().encode_prompts(prompts)

    def check_encodes(self, label: str) -> None:
        """Raise a ModelError when the index was imported without templates."""
        if not self._info.templates:
            raise ModelError(
                f"index {self._info.name!r} was imported, so nothing says how to encode "
                f"{label!r} as its labels were: leave it out"
            )

    @cached_property
    def _tower(self) -> TowerFiles | None:
        """ONNX tower that embeds images; None if torch does."""
        info = self._info
        if info.model_id is None:
            return None
        return choose_tower(self._store.location.files, info, self._runtime, self._device)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the index was built with.

        Raises:
            ModelError: when the index has no model, or it has changed since.
        """
        info = self._info
        if info.model_id is None:
            raise ModelError(
                f"index {info.name!r} was imported without a model: give ready embeddings to "
                "score(), or import it again with a model"
            )
        checkpoint = encoders.resolve(info.model_id, info.revision, info.dtype)
        numbers = (info.dim, info.logit_scale, info.logit_bias, info.activation)
        fingerprint = (
            checkpoint.fingerprint if info.templates else imported_fingerprint(checkpoint, *numbers)
        )
        if fingerprint != info.encoder_fingerprint:
            raise ModelError(
                f"model {info.model_id} has changed since index {info.name!r} was built (its "
                "files, or the transformers version that reads them): build the index again"
            )
        return checkpoint
