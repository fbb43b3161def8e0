"""A drop-in for transformers' zero-shot image classification that stores label embeddings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from transformers import ZeroShotImageClassificationPipeline
from transformers.image_utils import load_image

from zsic_index import prompts
from zsic_index.embedding_arrays import Float32
from zsic_index.embeddings.labels import bind_templates, embed_labels, fetch_embeddings
from zsic_index.encoders.source import EncoderSource
from zsic_index.encoders.transformers.encoder import TransformersEncoder
from zsic_index.encoders.transformers.fingerprint import (
    TextTowerState,
    compute_fingerprint,
    read_dtype,
    read_state,
    reason_not_to_store,
)
from zsic_index.errors import LabelError, ModelError, TemplateError
from zsic_index.label_index import LabelIndex
from zsic_index.label_index.arguments import check_top_k
from zsic_index.label_index.opening import is_current
from zsic_index.scan.probabilities import activate, log_sum_exp
from zsic_index.store import Store

logger = logging.getLogger("zsic_index")

ScoredLabels = list[dict[str, Any]]
"""Labels of one image as ``{"score": ..., "label": ...}``, best first."""

LABEL_SETS_KEPT = 8
"""Number of label sets whose embeddings stay in memory between calls."""

_PARAMETERS: tuple[tuple[str, ...], ...] = (
    ("timeout",),
    ("candidate_labels", "hypothesis_template", "top_k"),
)
"""Arguments of a call that go to ``preprocess``, and those that go to ``postprocess``."""


@dataclass(frozen=True, slots=True)
class _ModelSnapshot:
    """The pipeline's model at one moment.

    Attributes:
        state: value that differs once the text tower has changed.
        encoder: encoder on the model.
        source: encoder and fingerprint for the store; None if embeddings must not be stored.
        identity: key of its label embeddings in memory.
    """

    state: TextTowerState
    encoder: TransformersEncoder
    source: EncoderSource | None
    identity: object


class CachedZeroShotImageClassificationPipeline(ZeroShotImageClassificationPipeline):  # type: ignore[misc]
    """The stock pipeline with stored label embeddings: each prompt is encoded only once.

    Use it through ``pipeline``::

        classifier = pipeline(
            "zero-shot-image-classification",
            model="openai/clip-vit-large-patch14",
            pipeline_class=CachedZeroShotImageClassificationPipeline,
        )
        classifier("robin.jpg", candidate_labels=["robin", "wren"])

    Arguments and results are the stock pipeline's. Label embeddings are looked up in the store by
    everything that they depend on, including the weights in memory, and encoded if they are not
    there.

    Additional arguments:

    - ``store``, of the constructor: a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or the
      user's folder.
    - ``candidate_labels`` may be the name of an index of that store, for all of its labels.
    - ``top_k``: number of labels to return; all by default.

    If modules and tensors do not determine the output of the text tower (in training mode, or
    quantised dynamically), no embedding is stored, and a warning says so. Hooks and replaced
    methods are assumed not to change the output.

    Intended differences: prompts over the token limit are cut, where the stock pipeline fails; a
    template must have exactly one ``{}``; all computations after the towers are in float32 or
    higher precision, also with towers in bfloat16.

    Raises:
        ModelError: for a model whose family is not supported, or that does not fit the index.
        InputError: for labels or a template that cannot be used.
    """

    _snapshot: _ModelSnapshot | None

    def __init__(self, *, store: str | Path | None = None, **kwargs: Any) -> None:
        """Create a pipeline; called by ``transformers.pipeline``."""
        super().__init__(**kwargs)
        self._store = store
        self._reset()
        # Refuses an unsupported family at once, not at the first call.
        self._snapshot = self._take_snapshot()

    def _reset(self) -> None:
        """Initialise everything that is not pickled."""
        self._lock = threading.Lock()
        self._snapshot = None
        self._has_warned = False
        self._label_sets: LRUCache[tuple[Any, ...], Float32] = LRUCache(LABEL_SETS_KEPT)
        self._indexes: dict[str, LabelIndex] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle: all but locks, caches and open indexes."""
        transient = ("_lock", "_snapshot", "_has_warned", "_label_sets", "_indexes")
        return {key: value for key, value in vars(self).items() if key not in transient}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled state; the rest is computed at the next call."""
        self.__dict__.update(state)
        self._reset()

    def __call__(self, image: Any, candidate_labels: Any, **kwargs: Any) -> Any:
        """Classify one image or several; see the class."""
        self._snapshot = self._take_snapshot()
        if isinstance(candidate_labels, str):
            self._refresh(candidate_labels)
        return super().__call__(image, candidate_labels, **kwargs)

    def _sanitize_parameters(
        self, tokenizer_kwargs: Any = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        labels = kwargs.get("candidate_labels")
        if labels is not None and not isinstance(labels, str):
            # An iterator must serve all images.
            kwargs["candidate_labels"] = list(labels)
        if kwargs.get("top_k") is not None:
            check_top_k(kwargs["top_k"])
        for_preprocess, for_postprocess = (
            {name: kwargs[name] for name in names if name in kwargs} for names in _PARAMETERS
        )
        return for_preprocess, {}, for_postprocess

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:
        """Load one image like the stock pipeline, and turn it into inputs of the vision tower."""
        image = load_image(image, timeout=timeout)
        return self.image_processor(images=[image], return_tensors="pt").to(self.dtype)

    def _forward(self, model_inputs: Any) -> dict[str, Any]:
        encoded = self._current_snapshot().encoder.encode_pixels(model_inputs)
        for error in encoded.refused.values():
            raise error
        return {"image_embedding": torch.from_numpy(encoded.embeddings)}

    def postprocess(
        self,
        model_outputs: dict[str, torch.Tensor],
        candidate_labels: Sequence[Any] | str | None = None,
        hypothesis_template: str | None = None,
        top_k: int | None = None,
    ) -> ScoredLabels:
        """Score one image's embedding against all candidate labels."""
        embedding = model_outputs["image_embedding"].numpy()
        if candidate_labels is None:
            raise LabelError("candidate_labels is missing: give labels, or the name of an index")
        if isinstance(candidate_labels, str):
            return self._score_index(embedding, candidate_labels, hypothesis_template, top_k)
        matrix = self._label_embeddings(
            # Labels that are not strings are formatted as by the stock pipeline.
            [format(label) for label in candidate_labels],
            prompts.resolve(hypothesis_template),
        )
        info = self._current_snapshot().encoder.info
        similarities = (embedding @ matrix.T).astype(np.float64)
        logits = similarities * info.logit_scale + info.logit_bias
        partition = log_sum_exp(logits)
        (scores,) = activate(logits, info.activation, partition).tolist()
        pairs = sorted(zip(scores, candidate_labels, strict=True), key=lambda pair: -pair[0])
        return [{"score": score, "label": label} for score, label in pairs[:top_k]]

    def _label_embeddings(self, labels: list[str], templates: tuple[str, ...]) -> Float32:
        if not labels:
            raise LabelError("candidate_labels is empty: give at least one label")
        snapshot = self._current_snapshot()
        key = (snapshot.identity, templates, *labels)
        with self._lock:
            embeddings = self._label_sets.get(key)
        if embeddings is None:
            if snapshot.source is None:
                embeddings = embed_labels(snapshot.encoder, labels, templates)
            else:
                with Store.open(self._store, create=True) as store:
                    embeddings = fetch_embeddings(
                        store, snapshot.source, labels, bind_templates(labels, templates)
                    )
            with self._lock:
                self._label_sets[key] = embeddings
        return embeddings

    # Indexes by name

    def _refresh(self, name: str) -> None:
        """Open an index, or its current generation; check that it was built with this model."""
        with self._lock:
            index = self._indexes.get(name)
            if index is None or not is_current(index.store, index.info):
                index = LabelIndex.open(name, store=self._store)
            self._check_model(index)
            self._indexes[name] = index

    def _check_model(self, index: LabelIndex) -> None:
        """Raise a ModelError unless an index was built with this model, as it is in memory."""
        source, dtype = self._current_snapshot().source, read_dtype(self.model)
        info = index.info
        if info.templates and info.dtype != dtype:
            raise ModelError(
                f"index {info.name!r} was built in {info.dtype}, this pipeline computes in "
                f"{dtype}: make it with dtype={info.dtype!r}, or build an index in {dtype}"
            )
        if source is None or index.encoder.loaded_fingerprint() != source.fingerprint:
            raise ModelError(
                f"index {info.name!r} was not built with this model as it is in memory, but with "
                f"{info.model_id or 'imported embeddings'}: build one with it, or give its labels"
            )

    def _score_index(
        self, embedding: Float32, name: str, template: str | None, top_k: int | None
    ) -> ScoredLabels:
        index = self._indexes[name]
        if template is not None and (template,) != index.info.templates:
            raise TemplateError(
                f"template {template!r}: index {name!r} was built with "
                f"{', '.join(map(repr, index.info.templates))}; leave hypothesis_template out"
            )
        (predictions,) = index.score(embedding, top_k=len(index) if top_k is None else top_k)
        return [
            {"score": prediction.probability, "label": prediction.label}
            for prediction in predictions
        ]

    # The model in memory

    def _current_snapshot(self) -> _ModelSnapshot:
        snapshot = self._snapshot
        if snapshot is None:
            snapshot = self._snapshot = self._take_snapshot()
        return snapshot

    def _take_snapshot(self) -> _ModelSnapshot:
        """Return a snapshot of the model; its weights are hashed only if they have changed."""
        with self._lock:
            reason = reason_not_to_store(self.model)
            if reason is not None:
                if not self._has_warned:
                    self._has_warned = True
                    logger.warning("label embeddings are computed again at every call: %s", reason)
                return _ModelSnapshot((), self._new_encoder(), None, object())
            state = read_state(self.model, self.tokenizer)
            if self._snapshot is not None and self._snapshot.state == state:
                return self._snapshot
            encoder = self._new_encoder()
            fingerprint = compute_fingerprint(self.model, self.tokenizer)
            source = EncoderSource(
                fingerprint=fingerprint,
                model_id=str(self.model.name_or_path),
                revision=getattr(self.model.config, "_commit_hash", None),
                dtype=read_dtype(self.model),
                load=lambda: encoder,
            )
            return _ModelSnapshot(state, encoder, source, fingerprint)

    def _new_encoder(self) -> TransformersEncoder:
        return TransformersEncoder.of(self.model, self.tokenizer, self.image_processor)
