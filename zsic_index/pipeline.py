"""The drop-in for transformers' zero-shot image classification pipeline."""

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
    State,
    dtype_of,
    fingerprint_of,
    state_of,
    why_not_to_keep,
)
from zsic_index.errors import LabelError, ModelError, TemplateError
from zsic_index.label_index import LabelIndex
from zsic_index.label_index.arguments import check_top_k
from zsic_index.label_index.opening import is_current
from zsic_index.scan.probabilities import activate, log_sum_exp
from zsic_index.store import Store

logger = logging.getLogger("zsic_index")

Scored = list[dict[str, Any]]
"""One image's ``{"score": ..., "label": ...}``, best first."""

LABEL_SETS_KEPT = 8
"""Label sets whose embeddings stay in memory between calls."""

_PARAMETERS: tuple[tuple[str, ...], ...] = (
    ("timeout",),
    ("candidate_labels", "hypothesis_template", "top_k"),
)
"""What goes to ``preprocess`` and what to ``postprocess``."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The model as it was looked at.

    Attributes:
        state: what tells whether it is so still.
        encoder: it, as an encoder.
        source: what its label embeddings are kept under; None where they must not be kept.
        identity: what they are known by within this object.
    """

    state: State
    encoder: TransformersEncoder
    source: EncoderSource | None
    identity: object


class CachedZeroShotImageClassificationPipeline(ZeroShotImageClassificationPipeline):  # type: ignore[misc]
    """The stock pipeline, but that a prompt goes through the text tower once and never again.

    Use it through ``pipeline``::

        classifier = pipeline(
            "zero-shot-image-classification",
            model="openai/clip-vit-large-patch14",
            pipeline_class=CachedZeroShotImageClassificationPipeline,
        )
        classifier("robin.jpg", candidate_labels=["robin", "wren"])

    Arguments and results are the stock pipeline's. Label embeddings are looked up in the store by
    all that they depend on, the weights in memory included, and encoded only where it has none.

    More than the stock pipeline takes:

    - ``store``, when it is made: a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or the
      user's folder.
    - ``candidate_labels`` may be the name of an index of that store: then they are all of its
      labels.
    - ``top_k``: how many labels to return; all by default.

    Where what the text tower computes cannot be told from its modules and tensors (in training
    mode, or quantised dynamically), nothing is kept, and a warning says so. Hooks and replaced
    methods are taken not to change it.

    Different on purpose: prompts over the token limit are cut where the stock pipeline fails; a
    template must have exactly one ``{}``; activation and what leads to it are float32 at least,
    also where the towers are bfloat16.

    Raises:
        ModelError: for a model of a family that is not supported, or that does not fit the index.
        InputError: for labels or a template that cannot be used.
    """

    _known: _Known | None

    def __init__(self, *, store: str | Path | None = None, **kwargs: Any) -> None:
        """Make one; ``pipeline`` does."""
        super().__init__(**kwargs)
        self._store = store
        self._start()
        # A family that is not supported is refused at once.
        self._known = self._look()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._known = None
        self._told_why_not = False
        self._label_sets: LRUCache[tuple[Any, ...], Float32] = LRUCache(LABEL_SETS_KEPT)
        self._indexes: dict[str, LabelIndex] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is found anew: locks, hashes, open indexes."""
        own = ("_lock", "_known", "_told_why_not", "_label_sets", "_indexes")
        return {key: value for key, value in vars(self).items() if key not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was kept, and find the rest anew at the next call."""
        self.__dict__.update(state)
        self._start()

    def __call__(self, image: Any, candidate_labels: Any, **kwargs: Any) -> Any:
        """Classify one image or several; see the class."""
        self._known = self._look()
        if isinstance(candidate_labels, str):
            self._refresh(candidate_labels)
        return super().__call__(image, candidate_labels, **kwargs)

    def _sanitize_parameters(
        self, tokenizer_kwargs: Any = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        labels = kwargs.get("candidate_labels")
        if labels is not None and not isinstance(labels, str):
            # One that can be gone through once only is for all images.
            kwargs["candidate_labels"] = list(labels)
        if kwargs.get("top_k") is not None:
            check_top_k(kwargs["top_k"])
        given = [{key: kwargs[key] for key in keys if key in kwargs} for keys in _PARAMETERS]
        return given[0], {}, given[1]

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:
        """Load one image, as the stock pipeline does, and turn it into the vision tower's input."""
        image = load_image(image, timeout=timeout)
        return self.image_processor(images=[image], return_tensors="pt").to(self.dtype)

    def _forward(self, model_inputs: Any) -> dict[str, Any]:
        encoded = self._present().encoder.encode_pixels(model_inputs)
        for error in encoded.refused.values():
            raise error
        return {"image_embedding": torch.from_numpy(encoded.embeddings)}

    def postprocess(
        self,
        model_outputs: dict[str, torch.Tensor],
        candidate_labels: Sequence[Any] | str | None = None,
        hypothesis_template: str | None = None,
        top_k: int | None = None,
    ) -> Scored:
        """Score one image's embedding against all candidate labels."""
        embedding = model_outputs["image_embedding"].numpy()
        if candidate_labels is None:
            raise LabelError("candidate_labels is missing: give labels, or the name of an index")
        if isinstance(candidate_labels, str):
            return self._score_index(embedding, candidate_labels, hypothesis_template, top_k)
        matrix = self._label_embeddings(
            # What is no text is written out as the stock pipeline would.
            [format(label) for label in candidate_labels],
            prompts.resolve(hypothesis_template),
        )
        info = self._present().encoder.info
        similarities = (embedding @ matrix.T).astype(np.float64)
        logits = similarities * info.logit_scale + info.logit_bias
        partition = log_sum_exp(logits)
        (scores,) = activate(logits, info.activation, partition).tolist()
        pairs = sorted(zip(scores, candidate_labels, strict=True), key=lambda pair: -pair[0])
        return [{"score": score, "label": label} for score, label in pairs[:top_k]]

    def _label_embeddings(self, labels: list[str], templates: tuple[str, ...]) -> Float32:
        if not labels:
            raise LabelError("candidate_labels is empty: give at least one label")
        known = self._present()
        key = (known.identity, templates, *labels)
        with self._lock:
            embeddings = self._label_sets.get(key)
        if embeddings is None:
            if known.source is None:
                embeddings = embed_labels(known.encoder, labels, templates)
            else:
                with Store.open(self._store, create=True) as store:
                    embeddings = fetch_embeddings(
                        store, known.source, labels, bind_templates(labels, templates)
                    )
            with self._lock:
                self._label_sets[key] = embeddings
        return embeddings

    # Indexes by name

    def _refresh(self, name: str) -> None:
        """Open an index, or its present generation; check that this model made it."""
        with self._lock:
            opened = self._indexes.get(name)
            if opened is None or not is_current(opened.store, opened.info):
                opened = LabelIndex.open(name, store=self._store)
            self._check(opened)
            self._indexes[name] = opened

    def _check(self, index: LabelIndex) -> None:
        source, own = self._present().source, dtype_of(self.model)
        info = index.info
        if info.templates and info.dtype != own:
            raise ModelError(
                f"index {info.name!r} was built in {info.dtype}, this pipeline computes in {own}: "
                f"make it with dtype={info.dtype!r}, or build an index in {own}"
            )
        if source is None or index.encoder.loaded_fingerprint() != source.fingerprint:
            raise ModelError(
                f"index {info.name!r} was not built with this model as it is in memory, but with "
                f"{info.model_id or 'imported embeddings'}: build one with it, or give its labels"
            )

    def _score_index(
        self, embedding: Float32, name: str, template: str | None, top_k: int | None
    ) -> Scored:
        index = self._indexes[name]
        if template is not None and (template,) != index.info.templates:
            raise TemplateError(
                f"template {template!r}: index {name!r} was built with "
                f"{', '.join(map(repr, index.info.templates))}; leave hypothesis_template out"
            )
        (found,) = index.score(embedding, top_k=len(index) if top_k is None else top_k)
        return [{"score": one.probability, "label": one.label} for one in found]

    # The model as it is now

    def _present(self) -> _Known:
        known = self._known
        if known is None:
            known = self._known = self._look()
        return known

    def _look(self) -> _Known:
        """Return the model as it is now: hashed again if it is not as it was at the last call."""
        with self._lock:
            why_not = why_not_to_keep(self.model)
            if why_not is not None:
                if not self._told_why_not:
                    self._told_why_not = True
                    logger.warning("label embeddings are made anew at every call: %s", why_not)
                return _Known((), self._new_encoder(), None, object())
            state = state_of(self.model, self.tokenizer)
            if self._known is not None and self._known.state == state:
                return self._known
            encoder = self._new_encoder()
            fingerprint = fingerprint_of(self.model, self.tokenizer)
            source = EncoderSource(
                fingerprint=fingerprint,
                model_id=str(self.model.name_or_path),
                revision=getattr(self.model.config, "_commit_hash", None),
                dtype=dtype_of(self.model),
                load=lambda: encoder,
            )
            return _Known(state, encoder, source, fingerprint)

    def _new_encoder(self) -> TransformersEncoder:
        return TransformersEncoder.of(self.model, self.tokenizer, self.image_processor)
