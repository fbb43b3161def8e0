"""Frozen records that cross packages."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Activation = Literal["softmax", "sigmoid"]

Dtype = Literal["float32", "bfloat16", "float16"]
"""Dtype of the towers; everything after them is float32 or float64."""

Kind = Literal["flat", "float16", "hnsw", "ivf"]
"""Kind of an index: a scan of all embeddings in float32 or in half precision, a graph, or inverted
lists. The last two are approximate."""


Runtime = Literal["auto", "torch", "onnx", "onnx-int8"]
"""Library that runs the vision tower: torch, ONNX Runtime, the latter with weights of eight bits.

``auto`` is ONNX Runtime on a CPU where its tower counts as the same as torch's, else torch.
"""

Precision = Literal["float32", "int8"]
"""Number format of the weights of an ONNX tower."""

NamePooling = Literal["mean", "max", "mass"]
"""Pooling of the names of a label. ``mean`` averages their embeddings into one; the others keep a
row for each name: ``max`` takes the largest logit, ``mass`` the logsumexp of all of them, which
under softmax is the summed probability of the names."""


DEFAULT_TOP_K = 5
"""Default number of labels or nodes per image."""

HUB_K = 16
"""Default number of nearest images that a label's hub bias is averaged over."""

HUB_ALPHA = 0.5
"""Default factor of that mean when it is subtracted from the label's similarities."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label predicted for one image.

    Attributes:
        label: the label's name.
        probability: softmax or sigmoid of the logit, in [0, 1].
        logit: ``logit_scale * similarity + logit_bias``; with a calibration, of the fitted numbers
            and of the similarity minus the label bias.
        similarity: inner product of the two unit-norm embeddings, in [-1, 1]. With name pooling
            ``max`` that of the best name; with ``mass`` the label's logit without bias divided by
            the scale, which can be above 1.
        label_id: stable id in the store, kept by rebuilds; None for a label that is not in the
            index and was encoded for this query.
        index_probability: probability over all labels of the index, where ``probability`` is over
            a subset; None unless requested.
        interval: ends of the 95 % confidence interval of ``probability`` where an approximate
            index estimates it; None where it is exact.
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
    """One node of a taxonomy for one image: all labels below it, itself included if it is one.

    Attributes:
        label: the node's name; ``(none)`` for all labels that are below no node of a rank.
        probability: under softmax the sum over the labels, each counted once; under sigmoid the
            largest, or that of at least one where they are taken to be independent.
        rank: the node's rank; None where it has none.
        key: the node's key in the taxonomy; None for ``(none)``.
        path: names from the top down to the node.
    """

    label: str
    probability: float
    rank: str | None
    key: str | None
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Accepted predictions for one image, or the reason for none.

    Attributes:
        predictions: accepted labels, or nodes for a query about nodes, best first.
        reason: reason why no label is accepted; None where some are.
    """

    predictions: Sequence[Prediction | NodePrediction]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Properties of a loaded checkpoint.

    Attributes:
        model_type: transformers' name of the architecture, such as ``clip``.
        dim: D, the length of an embedding.
        logit_scale: the multiplier, already exponentiated.
        logit_bias: offset of the logits; 0.0 for models without one.
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
        dtype: dtype of the checkpoint's towers.
        encoder_fingerprint: hash of everything in the encoder that label embeddings depend on.
        templates: prompt templates; empty when the embeddings were imported.
        kind: kind of the index.
        name_pooling: how several names make one label.
        labels: N, the number of labels.
        rows: R, the number of embeddings: N, or with name pooling one for each name.
        dim: D, the length of an embedding.
        logit_scale: the multiplier, already exponentiated.
        logit_bias: offset of the logits.
        activation: ``softmax`` or ``sigmoid``.
        generation: number of published changes; 0 before the first.
        checksum: hexadecimal sha256 of label ids and embeddings in row order.
        taxonomy: hexadecimal sha256 of the packed taxonomy; None for a plain list of labels.
        plan: hexadecimal sha256 of encoder, templates and labels; empty for an index that was
            built before this was stored.
        created_at: seconds since the epoch, UTC.
        updated_at: seconds since the epoch, UTC.
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
    """An index that a service serves.

    Attributes:
        name: name of the index.
        model_id: checkpoint that made the embeddings; None if they were imported without one.
        revision: pinned revision of the checkpoint; None for local folders.
        dtype: dtype of the checkpoint's towers.
        templates: prompt templates; empty if the embeddings were imported.
        kind: kind of the index.
        name_pooling: how several names make one label.
        labels: number of labels.
        dim: length of an embedding.
        logit_scale: multiplier of similarities, already exponentiated.
        logit_bias: offset of the logits.
        activation: ``softmax`` or ``sigmoid``.
        generation: number of published changes.
        updated_at: time of the last change, in seconds since the epoch.
        ranks: ranks of the taxonomy, values of ``rank``.
        languages: languages with names, values of ``lang``.
        calibrated: whether a calibration is stored for the index.
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
        label_id: stable id of the label in the store.
        id: key of the label in the taxonomy.
        label: name of the label.
        parent: keys of the labels directly above it.
        rank: rank of the label; None if it has none.
        aliases: other names of the label.
        lang: name in other languages, by language tag.
        path: names from the top of the taxonomy down to the label.
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
    """Report of a build; ``labels == encoded_labels + reused_labels``.

    Attributes:
        name: name of the index.
        labels: number of labels in the index.
        encoded_labels: number of labels of which this build encoded an embedding.
        encoded_prompts: number of prompts that went through the text tower.
        reused_labels: number of labels whose embeddings were in the store.
        removed_labels: number of labels of the previous generation that were removed.
        truncated: prompts over the token limit, which were cut.
        duplicates: labels that were given more than once; the first is kept.
        model_loaded: True when the checkpoint's weights were loaded.
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
    """An encoder as the store keeps it; see ``ModelInfo`` for the numbers.

    ``loaded_fingerprint`` is that of the encoder in memory; None where it was never computed.
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


def field_descriptions(record: type[Any]) -> dict[str, str]:
    """Return the description of each field of a dataclass, from its docstring's ``Attributes:``.

    This makes the docstring the only place that describes a field: help on the command line and
    the OpenAPI document take their texts from it. Each begins with a capital letter, is one line
    without markup and is empty if Python has removed docstrings (``-OO``).
    """
    _, _, section = inspect.cleandoc(record.__doc__ or "").partition("\nAttributes:\n")
    entries = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE))
    descriptions = {}
    for entry in fields(record):
        text = " ".join(entries.get(entry.name, "").split()).replace("``", "'")
        descriptions[entry.name] = text[:1].upper() + text[1:]
    return descriptions
