"""LabelIndex: what a Python program holds."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import overload

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from zsic_index import builder, encoders, images, prompts, scoring, taxonomy
from zsic_index.builder import Progress
from zsic_index.encoders import Checkpoint, Encoder
from zsic_index.errors import ImageError, InputError, LabelError, ModelError
from zsic_index.images import ImageSource
from zsic_index.index import OpenIndex
from zsic_index.records import Activation, BuildReport, IndexInfo, Prediction
from zsic_index.scoring import Float32, Float64, Int64
from zsic_index.store import EncoderRecord, Store
from zsic_index.taxonomy import Taxonomy

DEFAULT_TOP_K = 5

IMAGES_PER_BATCH = 32

_ONE = (str, Path, bytes, Image)


class LabelIndex:
    """A fixed set of labels, ready to classify images against.

    Open one with ``build``, ``open`` or ``from_embeddings``. The model is loaded at the first
    image, never for ``score``. An open index goes on with the generation that it opened, whatever
    is built meanwhile.
    """

    def __init__(
        self,
        store: Store,
        info: IndexInfo,
        opened: OpenIndex,
        *,
        device: str = "auto",
        report: BuildReport | None = None,
    ) -> None:
        self._store = store
        self._info = info
        self._opened = opened
        self._device = device
        self._report = report
        self._encoder: Encoder | None = None

    # Opening

    @classmethod
    def build(
        cls,
        labels: str | Path | Iterable[str] | Taxonomy,
        *,
        model: str | Path,
        name: str,
        templates: str | Sequence[str] | None = None,
        revision: str | None = None,
        store: str | Path | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> LabelIndex:
        """Build an index, encoding only what the store does not have; then open it.

        Args:
            labels: a label file (see ``taxonomy.read``), or the labels themselves.
            model: ``builtin:clip``, ``builtin:siglip``, a folder, or a Hub id.
            name: the index's name; an index of that name becomes what is given here.
            templates: strings with exactly one ``{}``, or names of template sets; several are
                averaged (each normalised, mean, normalised). By default the one template of
                transformers' pipeline.
            revision: branch, tag or commit of a Hub model.
            store: a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or the user's folder.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            progress: called with (labels done, labels to encode) after every commit.

        Raises:
            InputError: for labels, templates or a name that cannot be used.
            ModelError: when the checkpoint cannot be had or is not supported.
            StoreError: when the store cannot be used.
        """
        checked = _taxonomy(labels)
        resolved = prompts.resolve(templates)
        builder.check_name(name)
        checkpoint = encoders.resolve(model, revision)
        opened = Store.open(store, create=True)
        report = builder.build(
            opened, name, checked, checkpoint, resolved, device=device, progress=progress
        )
        return cls(opened, *builder.open_index(opened, name), device=device, report=report)

    @classmethod
    def open(
        cls, name: str, *, store: str | Path | None = None, device: str = "auto"
    ) -> LabelIndex:
        """Open an index that was built before.

        Raises:
            IndexNotFoundError: when there is none of that name.
            StoreError: when the store cannot be used.
        """
        opened = Store.open(store)
        return cls(opened, *builder.open_index(opened, name), device=device)

    @classmethod
    def from_embeddings(
        cls,
        labels: str | Path | Iterable[str] | Taxonomy,
        embeddings: npt.ArrayLike,
        *,
        logit_scale: float,
        name: str,
        logit_bias: float = 0.0,
        activation: Activation = "softmax",
        model: str | Path | None = None,
        revision: str | None = None,
        store: str | Path | None = None,
        device: str = "auto",
    ) -> LabelIndex:
        """Make an index of label embeddings that were computed elsewhere.

        Args:
            labels: N distinct labels, or a file of them.
            embeddings: (N, D) floating-point; each row is normalised.
            logit_scale: the multiplier, already exponentiated, > 0.
            name: the index's name.
            logit_bias: what is added to the logits.
            activation: ``softmax`` or ``sigmoid``.
            model: the checkpoint whose vision tower fits them; without it only ``score`` works.
            revision: branch, tag or commit of a Hub model.
            store: see ``build``.
            device: see ``build``.

        Raises:
            EmbeddingError: when the array is no (N, D) of finite, non-zero rows.
            InputError: for labels, numbers or a name that cannot be used.
        """
        checked = _taxonomy(labels)
        if checked.duplicates:
            raise LabelError(
                f"label {checked.duplicates[0]!r} is given more than once: "
                "embeddings are matched to labels by position, so give each label once"
            )
        if not (np.isfinite(logit_scale) and logit_scale > 0 and np.isfinite(logit_bias)):
            raise InputError(
                f"logit_scale {logit_scale} and logit_bias {logit_bias} must be finite, "
                "the scale above 0 (it is the multiplier itself, already exponentiated)"
            )
        if activation not in ("softmax", "sigmoid"):
            raise InputError(f"activation {activation!r}: use softmax or sigmoid")
        unit = scoring.check_embeddings(embeddings)
        checkpoint = encoders.resolve(model, revision) if model is not None else None
        numbers = (unit.shape[1], float(logit_scale), float(logit_bias), activation)
        record = EncoderRecord(
            _imported_fingerprint(checkpoint, *numbers),
            checkpoint.model_id if checkpoint else None,
            checkpoint.revision if checkpoint else None,
            *numbers,
        )
        opened = Store.open(store, create=True)
        report = builder.import_embeddings(opened, name, checked, unit, record)
        return cls(opened, *builder.open_index(opened, name), device=device, report=report)

    def close(self) -> None:
        """Close the store's connections."""
        self._store.close()

    def __enter__(self) -> LabelIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Looking at it

    @property
    def info(self) -> IndexInfo:
        """What the store says about this index."""
        return self._info

    @property
    def report(self) -> BuildReport | None:
        """What ``build`` or ``from_embeddings`` did; None for an index that was only opened."""
        return self._report

    @property
    def embeddings(self) -> Float32:
        """(N, D) float32 unit-norm label embeddings in row order, memory-mapped and read-only."""
        return self._opened.matrix

    @property
    def label_ids(self) -> Int64:
        """(N,) int64 label ids in row order."""
        return self._opened.label_ids

    @property
    def labels(self) -> list[str]:
        """The N labels in row order."""
        return self._names(self.label_ids.tolist())

    def __len__(self) -> int:
        return len(self._opened.label_ids)

    # Asking it

    @overload
    def classify(  # type: ignore[overload-overlap]
        self,
        images: ImageSource,
        *,
        top_k: int = ...,
        labels: Sequence[str] | None = ...,
    ) -> list[Prediction]: ...

    @overload
    def classify(
        self,
        images: Sequence[ImageSource],
        *,
        top_k: int = ...,
        labels: Sequence[str] | None = ...,
    ) -> list[list[Prediction]]: ...

    def classify(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        top_k: int = DEFAULT_TOP_K,
        labels: Sequence[str] | None = None,
    ) -> list[Prediction] | list[list[Prediction]]:
        """Return the k most probable labels, best first, for one image or for each of several.

        Args:
            images: a path, the bytes of a file or a PIL image, or a sequence of these.
            top_k: k, at least 1.
            labels: a subset of the index's labels; probabilities are then over this subset.

        Raises:
            ImageError: when an image is refused; ``stream`` goes on instead.
            LabelError: when ``labels`` holds one that is not in the index.
            ModelError: when the index has no model, or not any more the one that it was built with.
        """
        found = []
        for result in self.stream(_listed(images), top_k=top_k, labels=labels):
            if isinstance(result, ImageError):
                raise result
            found.append(result)
        return found[0] if isinstance(images, _ONE) else found

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        top_k: int = DEFAULT_TOP_K,
        labels: Sequence[str] | None = None,
    ) -> Iterator[list[Prediction] | ImageError]:
        """Classify any number of images in bounded memory.

        Yields one result for each image in order: its predictions, or the ImageError that says why
        it was refused. Arguments are those of ``classify``.
        """
        _check_top_k(top_k)
        rows = None if labels is None else self._rows_of(labels)
        for refused, embeddings in self._embedded(images):
            found = iter(self._score(embeddings, top_k, rows))
            for error in refused:
                yield error or next(found)

    def probabilities(self, images: ImageSource | Sequence[ImageSource]) -> Float32:
        """Return the probability of every label: (B, N) float32 in row order, for small N.

        Raises:
            ImageError: when an image is refused.
            ModelError: see ``classify``.
        """
        similarities = scoring.similarities(self.embeddings, self.embed(images))
        logits = self._logits(similarities.astype(np.float64))
        partition = scoring.log_sum_exp(logits)
        return scoring.activate(logits, self._info.activation, partition).astype(np.float32)

    def score(
        self,
        embeddings: npt.ArrayLike,
        top_k: int = DEFAULT_TOP_K,
        *,
        labels: Sequence[str] | None = None,
    ) -> list[list[Prediction]]:
        """Return the k most probable labels for ready image embeddings; no model is loaded.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            top_k: k, at least 1.
            labels: see ``classify``.

        Raises:
            EmbeddingError: for another shape or dtype, NaN, infinity, or a row of norm 0.
        """
        _check_top_k(top_k)
        unit = scoring.check_embeddings(embeddings, self._info.dim)
        return self._score(unit, top_k, None if labels is None else self._rows_of(labels))

    def embed(self, images: ImageSource | Sequence[ImageSource]) -> Float32:
        """Return (B, D) float32 unit-norm image embeddings, as ``score`` takes them.

        Raises:
            ImageError: when an image is refused.
            ModelError: see ``classify``.
        """
        blocks = [np.empty((0, self._info.dim), dtype=np.float32)]
        for refused, embeddings in self._embedded(_listed(images)):
            for error in refused:
                if error:
                    raise error
            blocks.append(embeddings)
        return np.concatenate(blocks)

    # Inside

    def _score(self, embeddings: Float32, top_k: int, rows: Int64 | None) -> list[list[Prediction]]:
        matrix = self.embeddings if rows is None else self.embeddings[rows]
        info = self._info
        scan = scoring.scan(
            matrix,
            embeddings,
            top_k,
            logit_scale=info.logit_scale,
            logit_bias=info.logit_bias,
            partition=info.activation == "softmax",
        )
        logits = self._logits(scan.similarities)
        probabilities = scoring.activate(logits, info.activation, scan.log_partition)
        ids = self.label_ids[scan.rows if rows is None else rows[scan.rows]]
        names = dict(zip(ids.ravel().tolist(), self._names(ids.ravel().tolist()), strict=True))
        return [
            [
                Prediction(names[label_id], probability, logit, similarity, label_id)
                for label_id, probability, logit, similarity in zip(*line, strict=True)
            ]
            for line in zip(
                ids.tolist(),
                probabilities.tolist(),
                logits.tolist(),
                scan.similarities.tolist(),
                strict=True,
            )
        ]

    def _logits(self, similarities: Float64) -> Float64:
        return similarities * self._info.logit_scale + self._info.logit_bias

    def _names(self, label_ids: list[int]) -> list[str]:
        found = self._store.label_names(label_ids)
        return [found[label_id] for label_id in label_ids]

    def _rows_of(self, labels: Sequence[str]) -> Int64:
        if isinstance(labels, str):
            raise LabelError(f"labels={labels!r}: give a list of labels, not one string")
        rows = {name: row for row, name in enumerate(self.labels)}
        wanted = list(dict.fromkeys(labels))
        if not wanted:
            raise LabelError("labels is empty: give at least one, or None for all")
        for label in wanted:
            if label not in rows:
                near = difflib.get_close_matches(label, rows, n=3)
                raise LabelError(
                    f"label {label!r} is not in index {self._info.name!r}"
                    + (f"; nearest: {', '.join(near)}" if near else "")
                )
        return np.array([rows[label] for label in wanted], dtype=np.int64)

    def _embedded(
        self, sources: Iterable[ImageSource]
    ) -> Iterator[tuple[list[ImageError | None], Float32]]:
        """Yield for each batch what was refused where, and the embeddings of the others."""
        encoder = self._load_encoder()
        for batch in images.prepare_all(
            sources,
            encoder.preprocess,
            batch_size=IMAGES_PER_BATCH,
            threads=scoring.available_cores(),
        ):
            accepted = [image for image in batch if not isinstance(image, ImageError)]
            refused = [image if isinstance(image, ImageError) else None for image in batch]
            embeddings = encoder.encode_images(accepted)
            yield refused, scoring.check_embeddings(embeddings, self._info.dim)

    def _load_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = encoders.load(self._checkpoint(), device=self._device)
        return self._encoder

    def _checkpoint(self) -> Checkpoint:
        info = self._info
        if info.model_id is None:
            raise ModelError(
                f"index {info.name!r} was imported without a model: give ready embeddings to "
                "score(), or import it again with a model"
            )
        checkpoint = encoders.resolve(info.model_id, info.revision)
        numbers = (info.dim, info.logit_scale, info.logit_bias, info.activation)
        present = (
            checkpoint.fingerprint
            if info.templates
            else _imported_fingerprint(checkpoint, *numbers)
        )
        if present != info.encoder_fingerprint:
            raise ModelError(
                f"model {info.model_id} is not any more the one that index {info.name!r} was "
                "built with (its files, or the transformers version that reads them, have "
                "changed): build the index again"
            )
        return checkpoint


def _taxonomy(labels: str | Path | Iterable[str] | Taxonomy) -> Taxonomy:
    if isinstance(labels, Taxonomy):
        return labels
    if isinstance(labels, (str, Path)):
        return taxonomy.read(labels)
    return taxonomy.collect(labels)


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise InputError(f"top_k is {top_k}; it must be at least 1")


def _listed(sources: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    return [sources] if isinstance(sources, _ONE) else sources


def _imported_fingerprint(
    checkpoint: Checkpoint | None, dim: int, scale: float, bias: float, activation: Activation
) -> str:
    """Return the encoder fingerprint of embeddings made elsewhere."""
    parts = ["imported", checkpoint and checkpoint.fingerprint, dim, scale, bias, activation]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
