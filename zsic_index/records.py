"""Small frozen records that cross the borders between modules."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Activation = Literal["softmax", "sigmoid"]

Dtype = Literal["float32", "bfloat16", "float16"]
"""What the towers compute in; all after them is float32 or better."""

Kind = Literal["flat", "float16", "hnsw", "ivf"]
"""What is scanned or searched first: all embeddings in float32, all of them in half precision, a
graph, or inverted lists. The last two are approximate."""


NamePooling = Literal["mean", "max", "mass"]
"""How several names make one label. ``mean`` averages their embeddings into one; the others keep a
row for each name: ``max`` takes the largest logit, ``mass`` the logsumexp of all of them, which
under softmax is the summed probability of the names."""


DEFAULT_TOP_K = 5
"""Labels or nodes of an answer, unless said otherwise."""

HUB_K = 16
"""Images near to a label that its bias against hubs is the mean of, unless said otherwise."""

HUB_ALPHA = 0.5
"""The part of that mean which is taken from the label's similarities, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label for one image.

    Attributes:
        label: the label's name.
        probability: after the activation; in [0, 1].
        logit: ``logit_scale * similarity + logit_bias``; with a calibration its numbers, and of a
            similarity less the label's bias.
        similarity: inner product of the two unit-norm embeddings; in [-1, 1]. Of several names it
            is the largest; where their mass is summed, what makes the label's logit without bias
            when it is multiplied by the scale: that can be above 1.
        label_id: the label's stable id in the store; it survives rebuilds. None for a label that
            is not in the index and was encoded for this answer.
        index_probability: over all labels of the index, where ``probability`` is over a subset of
            them and this one was asked for; None otherwise.
        interval: a lowest and a highest ``probability``, between which the exact one is with 95 %
            confidence, where an approximate index only estimates it; None where it is exact.
    """

    label: str
    probability: float
    logit: float
    similarity: float
    label_id: int | None
    index_probability: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class NodePrediction:
    """One node of a taxonomy for one image: all labels below it, and itself where it is one.

    Attributes:
        label: the node's name; of what is below no node of a rank, ``(none)``.
        probability: under softmax the labels' summed probability, each counted once; under sigmoid
            the largest, or that of at least one where they are taken to be independent.
        rank: the node's rank; None where it has none.
        key: what the node is known by in its taxonomy; None for ``(none)``.
        path: names from the top down to the node.
    """

    label: str
    probability: float
    rank: str | None
    key: str | None
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is said of one image.

    Attributes:
        predictions: the accepted labels, best first; or nodes, where those were asked for.
        reason: why none of the labels is accepted; None where some are.
    """

    predictions: Sequence[Prediction | NodePrediction]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a checkpoint says about itself once it is loaded.

    Attributes:
        model_type: transformers' name of the architecture, such as ``clip``.
        dim: D, the length of an embedding.
        logit_scale: the multiplier, already exponentiated.
        logit_bias: what is added; 0.0 for models without one.
        activation: ``softmax`` or ``sigmoid``.
    """

    model_type: str
    dim: int
    logit_scale: float
    logit_bias: float
    activation: Activation


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """One index, as the store describes it.

    Attributes:
        index_id: the store's id of the index.
        name: its name.
        model_id: the checkpoint that made the embeddings; None when they were imported without one.
        revision: the checkpoint's pinned revision; None for local folders.
        dtype: what the checkpoint's towers compute in.
        encoder_fingerprint: what the label embeddings depend on, hashed.
        templates: prompt templates; empty when the embeddings were imported.
        kind: what is scanned or searched first.
        name_pooling: how several names make one label.
        labels: N, the number of labels.
        rows: R, the number of embeddings: N, or one for each name of each label.
        dim: D, the length of an embedding.
        logit_scale: the multiplier, already exponentiated.
        logit_bias: what is added to the logits.
        activation: ``softmax`` or ``sigmoid``.
        generation: counts the index's committed changes; 0 before the first.
        checksum: sha256 over label ids and embeddings in row order, hexadecimal.
        taxonomy: sha256 of the packed taxonomy, hexadecimal; None for a plain list of labels.
        plan: sha256 over what it was built from (encoder, templates, labels), hexadecimal; empty
            when it was built before this was kept.
        created_at: seconds since the epoch.
        updated_at: seconds since the epoch.
    """

    index_id: int
    name: str
    model_id: str | None
    revision: str | None
    dtype: Dtype
    encoder_fingerprint: str
    templates: tuple[str, ...]
    kind: Kind
    name_pooling: NamePooling = field(metadata={"json": "names"})
    labels: int
    rows: int
    dim: int
    logit_scale: float
    logit_bias: float
    activation: Activation
    generation: int
    checksum: str
    taxonomy: str | None
    plan: str
    created_at: float
    updated_at: float

    @property
    def names(self) -> NamePooling:
        """Deprecated: use ``name_pooling``."""
        warnings.warn("names is now name_pooling", DeprecationWarning, stacklevel=2)
        return self.name_pooling


@dataclass(frozen=True, slots=True)
class ServedIndexInfo:
    """One index, as a service describes it.

    Attributes:
        name: its name.
        model_id: the checkpoint that made the embeddings; None when they were imported without one.
        revision: the checkpoint's pinned revision; None for local folders.
        dtype: what the checkpoint's towers compute in.
        templates: prompt templates; empty when the embeddings were imported.
        kind: what is scanned or searched first.
        name_pooling: how several names make one label.
        labels: N, the number of labels.
        dim: D, the length of an embedding.
        logit_scale: the multiplier, already exponentiated.
        logit_bias: what is added to the logits.
        activation: ``softmax`` or ``sigmoid``.
        generation: counts the index's committed changes.
        updated_at: seconds since the epoch.
        ranks: the taxonomy's ranks, which ``rank`` takes.
        languages: what ``lang`` takes.
        calibrated: whether something was fitted for it.
    """

    name: str
    model_id: str | None
    revision: str | None
    dtype: Dtype
    templates: tuple[str, ...]
    kind: Kind
    name_pooling: NamePooling = field(metadata={"json": "names"})
    labels: int
    dim: int
    logit_scale: float
    logit_bias: float
    activation: Activation
    generation: int
    updated_at: float
    ranks: tuple[str, ...]
    languages: tuple[str, ...]
    calibrated: bool

    @property
    def names(self) -> NamePooling:
        """Deprecated: use ``name_pooling``."""
        warnings.warn("names is now name_pooling", DeprecationWarning, stacklevel=2)
        return self.name_pooling


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """One label of an index, as a service describes it.

    Attributes:
        label_id: its stable id in the store.
        id: what it is known by in its taxonomy.
        label: its name.
        parent: what the labels above it are known by.
        rank: its rank; None where it has none.
        aliases: other names.
        lang: its name in other languages, by their tags.
        path: names from the top down to it.
    """

    label_id: int
    id: str
    label: str
    parent: tuple[str, ...]
    rank: str | None
    aliases: tuple[str, ...]
    lang: Mapping[str, str]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. ``labels == encoded_labels + reused_labels``.

    Attributes:
        name: the index.
        labels: labels in the index now.
        encoded_labels: labels whose embedding, or that of one of whose names, was computed by this
            build.
        encoded_prompts: prompts that went through the text tower.
        reused_labels: labels whose embedding was in the store already.
        removed_labels: labels of the previous generation that are gone.
        truncated: prompts that were over the token limit and were cut.
        duplicates: labels that were given more than once; the first is kept.
        model_loaded: whether the checkpoint's weights were loaded at all.
        generation: the index's generation after the build.
        seconds: wall time.
    """

    name: str
    labels: int
    encoded_labels: int
    encoded_prompts: int
    reused_labels: int
    removed_labels: int
    truncated: tuple[str, ...]
    duplicates: tuple[str, ...]
    model_loaded: bool
    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """What the store keeps of an encoder; see ``records.ModelInfo`` for the numbers.

    ``loaded_fingerprint`` is that of the encoder as it is in memory, where it is known.
    """

    fingerprint: str
    model_id: str | None
    revision: str | None
    dtype: Dtype
    dim: int
    logit_scale: float
    logit_bias: float
    activation: Activation
    loaded_fingerprint: str | None = None


def json_names(record: type[Any]) -> dict[str, str]:
    """Return the JSON key of each field of a record, by the field's name."""
    return {entry.name: entry.metadata.get("json", entry.name) for entry in fields(record)}


def to_json(record: Any) -> dict[str, Any]:
    """Return a record as a JSON object, under its JSON keys."""
    keys = json_names(type(record))
    return {keys[name]: value for name, value in asdict(record).items()}
