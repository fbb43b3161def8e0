"""The drop-in for transformers' zero-shot image classification pipeline."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ZeroShotImageClassificationPipeline
from transformers.image_utils import load_image

from zsic_index import prompts, scoring
from zsic_index.encoder_source import EncoderSource
from zsic_index.encoders import in_memory
from zsic_index.errors import LabelError, ModelError, TemplateError
from zsic_index.label_embeddings import fetch
from zsic_index.label_index import LabelIndex
from zsic_index.scoring import Float32
from zsic_index.store import Store

Scored = list[dict[str, Any]]
"""One image's ``{"score": ..., "label": ...}``, best first."""

LABEL_SETS_KEPT = 8
"""Label sets whose embeddings stay in memory between calls."""

_PARAMETERS: tuple[tuple[str, ...], ...] = (
    ("timeout",),
    ("candidate_labels", "hypothesis_template", "top_k"),
)
"""What goes to ``preprocess`` and what to ``postprocess``."""

_PROBES = 4
_PROBE_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-3}
"""By how much 1 - cosine may differ: other devices and batch sizes round differently."""


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

    Different on purpose: prompts over the token limit are cut where the stock pipeline fails; a
    template must have exactly one ``{}``; activation and what leads to it are float32 at least,
    also where the towers are bfloat16.

    Raises:
        ModelError: for a model of a family that is not supported, or that does not fit the index.
        InputError: for labels or a template that cannot be used.
    """

    def __init__(self, *, store: str | Path | None = None, **kwargs: Any) -> None:
        """Make one; ``pipeline`` does."""
        super().__init__(**kwargs)
        self._store = store
        self._encoder = in_memory.encoder_of(self.model, self.tokenizer, self.image_processor)
        self._state: in_memory.State = ()
        self._source = self._present_source()
        self._label_sets: OrderedDict[tuple[Any, ...], Float32] = OrderedDict()
        self._indexes: dict[str, LabelIndex] = {}

    def __call__(self, image: Any, candidate_labels: Any, **kwargs: Any) -> Any:
        """Classify one image or several; see the class."""
        self._source = self._present_source()
        return super().__call__(image, candidate_labels, **kwargs)

    def _sanitize_parameters(
        self, tokenizer_kwargs: Any = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = [{key: kwargs[key] for key in keys if key in kwargs} for keys in _PARAMETERS]
        return given[0], {}, given[1]

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:
        """Load one image, as the stock pipeline does, and turn it into the vision tower's input."""
        image = load_image(image, timeout=timeout)
        return self.image_processor(images=[image], return_tensors="pt").to(self.dtype)

    def _forward(self, model_inputs: Any) -> dict[str, Any]:
        encoded = self._encoder.encode_pixels(model_inputs)
        for error in encoded.refused.values():
            raise error
        return {"image_embedding": torch.from_numpy(encoded.embeddings)}

    def postprocess(
        self,
        model_outputs: dict[str, torch.Tensor],
        candidate_labels: Sequence[str] | str | None = None,
        hypothesis_template: str | None = None,
        top_k: int | None = None,
    ) -> Scored:
        """Score one image's embedding against all candidate labels."""
        embedding = model_outputs["image_embedding"].numpy()
        if candidate_labels is None:
            raise LabelError("candidate_labels is missing: give labels, or the name of an index")
        if isinstance(candidate_labels, str):
            return self._score_index(embedding, candidate_labels, hypothesis_template, top_k)
        labels = list(candidate_labels)
        matrix = self._label_embeddings(labels, prompts.resolve(hypothesis_template))
        info = self._encoder.info
        similarities = scoring.similarities(matrix, embedding).astype(np.float64)
        logits = similarities * info.logit_scale + info.logit_bias
        partition = scoring.log_sum_exp(logits)
        (scores,) = scoring.activate(logits, info.activation, partition).tolist()
        pairs = sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])
        return [{"score": score, "label": label} for score, label in pairs[:top_k]]

    def _label_embeddings(self, labels: list[str], templates: tuple[str, ...]) -> Float32:
        if not labels:
            raise LabelError("candidate_labels is empty: give at least one label")
        key = (self._source.fingerprint, templates, *labels)
        if key not in self._label_sets:
            with Store.open(self._store, create=True) as store:
                self._label_sets[key] = fetch(store, self._source, labels, templates)
            while len(self._label_sets) > LABEL_SETS_KEPT:
                self._label_sets.popitem(last=False)
        self._label_sets.move_to_end(key)
        return self._label_sets[key]

    def _score_index(
        self, embedding: Float32, name: str, template: str | None, top_k: int | None
    ) -> Scored:
        if name not in self._indexes:
            opened = LabelIndex.open(name, store=self._store)
            self._check_index(opened)
            self._indexes[name] = opened
        index = self._indexes[name]
        if template is not None and (template,) != index.info.templates:
            raise TemplateError(
                f"template {template!r}: index {name!r} was built with "
                f"{', '.join(map(repr, index.info.templates))}; leave hypothesis_template out"
            )
        (found,) = index.score(embedding, top_k=len(index) if top_k is None else top_k)
        return [{"score": one.probability, "label": one.label} for one in found]

    def _check_index(self, index: LabelIndex) -> None:
        """Hold a few of an index's embeddings against what this model makes of their labels."""
        info, own = index.info, self._encoder.info
        numbers = (info.dim, info.activation, info.templates != ())
        fits = numbers == (own.dim, own.activation, True) and np.allclose(
            (info.logit_scale, info.logit_bias), (own.logit_scale, own.logit_bias), rtol=1e-2
        )
        if fits:
            rows = np.unique(np.linspace(0, len(index) - 1, _PROBES).astype(int))
            for row, label in zip(rows, index.labels_at(rows), strict=True):
                embeddings = self._encoder.encode_prompts(
                    prompts.render(label, info.templates)
                ).embeddings
                mean = scoring.check_embeddings(embeddings.mean(axis=0, dtype=np.float64))[0]
                off = 1 - float(mean @ index.embeddings[row])
                fits &= off <= _PROBE_TOLERANCE[in_memory.dtype_of(self.model)]
        if not fits:
            raise ModelError(
                f"index {info.name!r} was not built with this model, but with "
                f"{info.model_id or 'imported embeddings'}: build one with it, or give its labels"
            )

    def _present_source(self) -> EncoderSource:
        """Return the model as it is now: hashed again if it is not as it was at the last call."""
        state = in_memory.state_of(self.model, self.tokenizer)
        if state == self._state:
            return self._source
        self._state = state
        self._encoder = in_memory.encoder_of(self.model, self.tokenizer, self.image_processor)
        return EncoderSource(
            fingerprint=in_memory.fingerprint_of(self.model, self.tokenizer),
            model_id=str(self.model.name_or_path),
            revision=getattr(self.model.config, "_commit_hash", None),
            dtype=in_memory.dtype_of(self.model),
            load=lambda: self._encoder,
        )
