"""LabelIndex: what a Python program holds."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar, get_args, overload

import numpy as np
import numpy.typing as npt

from zsic_index import encoders, prompts, taxonomy
from zsic_index.calibration import Calibration, ScaleFit, pair_similarities
from zsic_index.embedding_arrays import Float32, Float64, Int64, check_embeddings
from zsic_index.embeddings.images import ImageEmbedder
from zsic_index.embeddings.label_rows import LabelRows
from zsic_index.embeddings.labels import Progress, fetch, rendered
from zsic_index.encoders import Checkpoint, EncodedPrompts
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import ImageError, InputError, LabelError, ModelError, StoreError
from zsic_index.images.opening import LIMITS, Decode, ImageLimits, ImageSource, listed
from zsic_index.index_files import OpenIndex
from zsic_index.label_index import builder
from zsic_index.label_index.nodes import NodeAnswers
from zsic_index.label_index.opening import (
    check_top_k,
    checked_choice,
    imported_fingerprint,
    read_taxonomy,
)
from zsic_index.label_index.searcher import Found, Searcher
from zsic_index.records import (
    DEFAULT_TOP_K,
    Activation,
    BuildReport,
    Dtype,
    EncoderRecord,
    IndexInfo,
    Kind,
    NamePooling,
    NodePrediction,
    Prediction,
)
from zsic_index.scan.goal import Scan
from zsic_index.scan.groups import Reduction
from zsic_index.scan.pooling import Pooling
from zsic_index.scan.probabilities import activate, log_sum_exp
from zsic_index.store import LabelPlace, Store
from zsic_index.taxonomy import Taxonomy, packing
from zsic_index.taxonomy.names import nearest
from zsic_index.taxonomy.structure import Structure

Answer = TypeVar("Answer")

_NEAR = 70.0
"""How like a name must be, of 100, to be offered in the place of one that is not there."""


_OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class _Subset:
    """Labels that a query is limited to.

    Attributes:
        labels: n names.
        label_ids: (n,) int64, _OUTSIDE for a label that is not in the index.
        matrix: (n, D) float32 unit-norm embeddings, or a row for each name.
        pooling: which rows are one label; None where each is.
    """

    labels: list[str]
    label_ids: Int64
    matrix: Float32
    pooling: Pooling | None


@dataclass(frozen=True, slots=True)
class _Held:
    """What else would be read from the store when an answer needs it.

    Attributes:
        names: what labels are called, by their ids.
        keys: what they are known by.
        calibration: what is kept for the index.
    """

    names: Mapping[int, str]
    keys: Mapping[int, str]
    calibration: Calibration | None


class LabelIndex(AbstractContextManager["LabelIndex"]):
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
        decode: Decode = "exact",
        keep_images: bool = False,
        report: BuildReport | None = None,
    ) -> None:
        self._store = store
        self._info = info
        self._opened = opened
        self._device = device
        self._decode: Decode = decode
        self._keep_images = keep_images
        self._report = report
        self._calibration: Calibration | None = None
        self._held: _Held | None = None
        self._searcher = Searcher(info, opened, device)

    # Opening

    @classmethod
    def build(
        cls,
        labels: str | Path | Iterable[str] | Taxonomy,
        *,
        model: str | Path,
        name: str,
        templates: str | Path | Sequence[str | Path] | None = None,
        revision: str | None = None,
        store: str | Path | None = None,
        device: str = "auto",
        dtype: Dtype = "float32",
        kind: Kind = "flat",
        name_pooling: NamePooling = "mean",
        names: NamePooling | None = None,
        progress: Progress | None = None,
    ) -> LabelIndex:
        """Build an index, encoding only what the store does not have; then open it.

        Args:
            labels: a label file (see ``taxonomy.read``), ``builtin:photo-tags`` or
                ``builtin:emoji``, or the labels themselves.
            model: ``builtin:clip``, ``builtin:siglip``, a folder, or a Hub id.
            name: the index's name; an index of that name becomes what is given here.
            templates: strings with exactly one ``{}``, names of template sets, or text files with
                one template a line; several are averaged (each normalised, mean, normalised). By
                default the one template of transformers' pipeline.
            revision: branch, tag or commit of a Hub model.
            store: a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or the user's folder.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            dtype: what both towers compute in: ``float32``, ``bfloat16`` or ``float16``. What comes
                after them is float32 in any case. Embeddings of another dtype are never reused.
            kind: ``flat`` is exact. ``float16`` reads half as much memory; its top-k is exact, its
                log-partition is off by up to ``logit_scale`` times the rounding error that ``info``
                shows. ``hnsw`` and ``ivf`` are approximate, for label sets that do not fit:
                probabilities of softmax models are then estimates with an ``interval``.
            name_pooling: how a label's name and its aliases make one label. ``mean`` averages
                their embeddings. ``max`` takes the similarity of the best name. ``mass`` (softmax
                models) gives the label the sum of its names' probabilities. The last two keep a row
                for each name, and need ``kind="flat"``.
            names: deprecated, the former name of ``name_pooling``.
            progress: called with (labels done, labels to encode) after every commit.

        Raises:
            InputError: for labels, templates or a name that cannot be used.
            ModelError: when the checkpoint cannot be had or is not supported.
            StoreError: when the store cannot be used.
        """
        if names is not None:
            warnings.warn("names is now name_pooling", DeprecationWarning, stacklevel=2)
        checked = read_taxonomy(labels)
        resolved = prompts.resolve(templates)
        builder.check_name(name)
        checkpoint = encoders.resolve(model, revision, dtype)
        opened = Store.open(store, create=True)
        report = builder.build(
            opened,
            name,
            checked,
            checkpoint,
            resolved,
            kind=checked_choice(kind, Kind, "kind"),
            name_pooling=checked_choice(names or name_pooling, NamePooling, "name_pooling"),
            device=device,
            progress=progress,
        )
        return cls(opened, *builder.open_index(opened, name), device=device, report=report)

    @classmethod
    def open(
        cls,
        name: str,
        *,
        store: str | Path | None = None,
        device: str = "auto",
        decode: Decode = "exact",
        keep_images: bool = False,
    ) -> LabelIndex:
        """Open an index that was built before.

        Args:
            name: the index's name.
            store: see ``build``.
            device: see ``build``.
            decode: ``exact``, or ``scaled``: large JPEGs are then decoded at 1/2, 1/4 or 1/8 of
                their size, several times faster, for slightly other embeddings.
            keep_images: whether image embeddings are looked up and kept in the store, by what is in
                the file and all that its embedding depends on. When all of them are there, no model
                is loaded.

        Raises:
            IndexNotFoundError: when there is none of that name.
            StoreError: when the store cannot be used.
        """
        if decode not in get_args(Decode):
            raise InputError(f"decode {decode!r}: use {' or '.join(get_args(Decode))}")
        opened = Store.open(store)
        return cls(
            opened,
            *builder.open_index(opened, name),
            device=device,
            decode=decode,
            keep_images=keep_images,
        )

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
        kind: Kind = "flat",
        model: str | Path | None = None,
        revision: str | None = None,
        store: str | Path | None = None,
        device: str = "auto",
    ) -> LabelIndex:
        """Make an index of label embeddings that were computed elsewhere.

        Args:
            labels: N distinct labels, or a file of them. Aliases are for finding them by: each
                label has the one embedding that is given.
            embeddings: (N, D) floating-point; each row is normalised.
            logit_scale: the multiplier, already exponentiated, > 0.
            name: the index's name.
            logit_bias: what is added to the logits.
            activation: ``softmax`` or ``sigmoid``.
            kind: see ``build``.
            model: the checkpoint whose vision tower fits them; without it only ``score`` works.
            revision: branch, tag or commit of a Hub model.
            store: see ``build``.
            device: see ``build``.

        Raises:
            EmbeddingError: when the array is no (N, D) of finite, non-zero rows.
            InputError: for labels, numbers or a name that cannot be used.
        """
        checked = read_taxonomy(labels)
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
        unit = check_embeddings(embeddings)
        checkpoint = encoders.resolve(model, revision) if model is not None else None
        numbers = (unit.shape[1], float(logit_scale), float(logit_bias), activation)
        record = EncoderRecord(
            imported_fingerprint(checkpoint, *numbers),
            checkpoint.model_id if checkpoint else None,
            checkpoint.revision if checkpoint else None,
            checkpoint.dtype if checkpoint else "float32",
            *numbers,
        )
        opened = Store.open(store, create=True)
        report = builder.import_embeddings(
            opened, name, checked, unit, record, kind=checked_choice(kind, Kind, "kind")
        )
        return cls(opened, *builder.open_index(opened, name), device=device, report=report)

    def use(self, calibration: Calibration | None) -> None:
        """Answer with what was fitted from now on; None for the model's own numbers.

        A fitted logit scale and bias take the place of the model's. A label bias is taken from
        similarities before all else: order, log-partition, roll-up, subsets and sets follow. What
        answers call ``similarity`` stays what it is.

        Raises:
            InputError: when it was fitted for another activation, or has a label bias that this
                kind of index cannot take.
        """
        if calibration is not None and calibration.activation != self._info.activation:
            raise InputError(
                f"the calibration is for {calibration.activation}, index {self._info.name!r} has "
                f"{self._info.activation}: calibrate this index"
            )
        if calibration is not None and calibration.hubs is not None:
            self.check_takes_a_bias()
        self._calibration = calibration
        self._searcher.use(self.logit_scale, self.logit_bias, self._bias_of(self.label_ids))

    def with_calibration(self, calibration: Calibration | None) -> LabelIndex:
        """Return the same index, answering with what was fitted; see ``use``. It shares the store.

        On a GPU each has a copy of the matrix of its own.
        """
        twin = self._twin(self._info, self._opened)
        twin.use(calibration)
        return twin

    def check_takes_a_bias(self) -> None:
        """Raise an InputError where a label bias cannot be used: a search would not know of it."""
        if self._info.kind in ("hnsw", "ivf"):
            raise InputError(
                f"index {self._info.name!r} is of kind {self._info.kind}, which is searched by "
                "similarity alone: for a label bias build it with kind 'flat' or 'float16'"
            )

    @property
    def calibration(self) -> Calibration | None:
        """What answers are made with; None for the model's own scale and bias."""
        return self._calibration

    def keep(self, calibration: Calibration | None) -> None:
        """Keep a calibration in the store, beside this index; None to forget it."""
        self._store.keep_calibration(
            self._info, None if calibration is None else calibration.to_json()
        )

    @property
    def kept_calibration(self) -> Calibration | None:
        """The calibration that is kept for this index, if there is one.

        Raises:
            StoreError: when the index has changed since.
        """
        if self._held is not None:
            return self._held.calibration
        content = self._store.calibration(self._info)
        return None if content is None else Calibration.from_json(content)

    def required_calibration(self) -> Calibration:
        """Return the calibration that is kept for this index.

        Raises:
            InputError: when there is none.
            StoreError: when the index has changed since.
        """
        found = self.kept_calibration
        if found is None:
            raise InputError(
                f"index {self._info.name!r} has no calibration: run 'zsic-index calibrate'"
            )
        return found

    @property
    def logit_scale(self) -> float:
        """The multiplier that answers are made with: the model's own, or the fitted one."""
        return self._fit.scale if self._fit else self._info.logit_scale

    @property
    def logit_bias(self) -> float:
        """What answers add to the logits: the model's own, or the fitted one."""
        return self._fit.bias if self._fit else self._info.logit_bias

    @property
    def _fit(self) -> ScaleFit | None:
        return self._calibration.fit if self._calibration else None

    def with_templates(self, templates: str | Path | Sequence[str | Path]) -> LabelIndex:
        """Return the same labels under other templates, in memory; no index is made of it.

        Embeddings are kept in the store as any others, so that asking again encodes nothing.
        Templates that the taxonomy has itself stay.

        Raises:
            ModelError: when the index has no model.
            TemplateError: see ``prompts.resolve``.
        """
        resolved = prompts.resolve(templates)
        self._check_encodes(self.info.name)
        rows = LabelRows.of(self.structure, self._info.name_pooling, resolved)
        matrix = fetch(self._store, self._source, rows.names, rows.prompts_of)
        in_order = matrix[rows.in_order(self.structure.row_order)]
        twin = self._twin(
            replace(self._info, templates=resolved, kind="flat"),
            OpenIndex(self.label_ids, in_order, None, self.pooling),
        )
        twin._report = None
        twin.use(None)
        return twin

    def _twin(self, info: IndexInfo, opened: OpenIndex) -> LabelIndex:
        """Return the same labels with other embeddings: store, names, taxonomy, encoder shared."""
        twin = copy.copy(self)
        twin._info = info
        twin._opened = opened
        twin._searcher = Searcher(info, opened, self._device)
        return twin

    def close(self) -> None:
        """Close the store's connections."""
        self._store.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Looking at it

    @property
    def info(self) -> IndexInfo:
        """What the store says about this index."""
        return self._info

    @property
    def store(self) -> Store:
        """Where it lies."""
        return self._store

    @property
    def report(self) -> BuildReport | None:
        """What ``build`` or ``from_embeddings`` did; None for an index that was only opened."""
        return self._report

    @property
    def embeddings(self) -> Float32:
        """(R, D) float32 unit-norm label embeddings in row order, memory-mapped and read-only.

        R is N, the number of labels; or, where names are pooled, the number of all their names.
        """
        return self._opened.matrix

    @property
    def pooling(self) -> Pooling | None:
        """Which rows are names of one label, and what a label has of them; None where each is one.

        What says "row" of a label elsewhere then means its place among the labels.
        """
        return self._opened.pooling

    @property
    def label_ids(self) -> Int64:
        """(N,) int64 label ids in row order."""
        return self._opened.label_ids

    @property
    def labels(self) -> list[str]:
        """The N labels in row order."""
        return self.names_of(self.label_ids.tolist())

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """What was built from. Rows have its labels in another order: ``structure.row_order``.

        Raises:
            StoreError: when the index was built again or removed before this was asked for.
        """
        if self._info.taxonomy is None:
            return taxonomy.collect(self.labels)
        return packing.unpack(self._store.taxonomy(self._info.taxonomy))

    @cached_property
    def structure(self) -> Structure:
        """Answers to questions about the taxonomy; its labels are in the taxonomy's order."""
        return Structure(self.taxonomy)

    def is_current(self) -> bool:
        """Tell whether this is the index's present generation; False when it has been removed."""
        info = self._store.find_index(self._info.name)
        return info is not None and (info.index_id, info.generation) == (
            self._info.index_id,
            self._info.generation,
        )

    def loaded_fingerprint(self) -> str | None:
        """Return the hash of the encoder as it is in memory, where the store knows it."""
        record = self._store.find_encoder(self._info.encoder_fingerprint)
        return None if record is None else record.loaded_fingerprint

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
        encode_missing: bool = ...,
        over_index: bool = ...,
    ) -> list[Prediction]: ...

    @overload
    def classify(
        self,
        images: Sequence[ImageSource],
        *,
        top_k: int = ...,
        labels: Sequence[str] | None = ...,
        encode_missing: bool = ...,
        over_index: bool = ...,
    ) -> list[list[Prediction]]: ...

    def classify(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        top_k: int = DEFAULT_TOP_K,
        labels: Sequence[str] | None = None,
        encode_missing: bool = False,
        over_index: bool = False,
    ) -> list[Prediction] | list[list[Prediction]]:
        """Return the k most probable labels, best first, for one image or for each of several.

        Args:
            images: a path, the bytes of a file or a PIL image, or a sequence of these.
            top_k: k, at least 1.
            labels: a subset of the index's labels; probabilities are then over this subset.
            encode_missing: whether members of ``labels`` that are not in the index are encoded with
                its templates, and kept for the next time; otherwise they are an error.
            over_index: whether predictions also get their ``index_probability``.

        Raises:
            ImageError: when an image is refused; ``stream`` goes on instead.
            LabelError: when ``labels`` holds one that is not in the index; it names the nearest.
            ModelError: when the index has no model, or not any more the one that it was built with.
        """
        found = []
        for result in self.stream(
            listed(images),
            top_k=top_k,
            labels=labels,
            encode_missing=encode_missing,
            over_index=over_index,
        ):
            if isinstance(result, ImageError):
                raise result
            found.append(result)
        return found[0] if isinstance(images, ImageSource) else found

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        top_k: int = DEFAULT_TOP_K,
        labels: Sequence[str] | None = None,
        encode_missing: bool = False,
        over_index: bool = False,
    ) -> Iterator[list[Prediction] | ImageError]:
        """Classify any number of images in bounded memory.

        Yields one result for each image in order: its predictions, or the ImageError that says why
        it was refused. Arguments are those of ``classify``.
        """
        answer = self.answers(
            top_k=top_k, labels=labels, encode_missing=encode_missing, over_index=over_index
        )
        return self.stream_answers(images, answer)

    def stream_rank(
        self,
        images: Iterable[ImageSource],
        *,
        rank: str,
        top_k: int = DEFAULT_TOP_K,
        independent: bool = False,
    ) -> Iterator[list[NodePrediction] | ImageError]:
        """Roll any number of images up to a rank; see ``score_rank`` and ``stream``."""
        return self.stream_answers(
            images, self.rank_answers(rank=rank, top_k=top_k, independent=independent)
        )

    def stream_deepest(
        self,
        images: Iterable[ImageSource],
        *,
        floor: float,
        by_rank: Mapping[str, float] | None = None,
        independent: bool = False,
    ) -> Iterator[list[NodePrediction] | ImageError]:
        """Find the deepest node for any number of images; see ``score_deepest`` and ``stream``.

        Yields lists of one node, or of none.
        """
        return self.stream_answers(
            images, self.deepest_answers(floor=floor, by_rank=by_rank, independent=independent)
        )

    def probabilities(self, images: ImageSource | Sequence[ImageSource]) -> Float32:
        """Return the probability of every label: (B, N) float32 in row order, for small N.

        Raises:
            ImageError: when an image is refused.
            ModelError: see ``classify``.
        """
        similarities = (self.embed(images) @ self.embeddings.T).astype(np.float64)
        if self.pooling is not None:
            similarities = self.pooling.similarities(similarities, self.logit_scale)
        logits = self._logits(similarities, np.arange(len(self)))
        partition = log_sum_exp(logits)
        return activate(logits, self._info.activation, partition).astype(np.float32)

    def score(
        self,
        embeddings: npt.ArrayLike,
        top_k: int = DEFAULT_TOP_K,
        *,
        labels: Sequence[str] | None = None,
        over_index: bool = False,
    ) -> list[list[Prediction]]:
        """Return the k most probable labels for ready image embeddings; no model is loaded.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            top_k: k, at least 1.
            labels: see ``classify``.
            over_index: see ``classify``.

        Raises:
            EmbeddingError: for another shape or dtype, NaN, infinity, or a row of norm 0.
        """
        unit = check_embeddings(embeddings, self._info.dim)
        return self.answers(top_k=top_k, labels=labels, over_index=over_index)(unit)

    def score_rank(
        self,
        embeddings: npt.ArrayLike,
        *,
        rank: str,
        top_k: int = DEFAULT_TOP_K,
        independent: bool = False,
    ) -> list[list[NodePrediction]]:
        """Return the k most probable nodes of a rank for ready image embeddings.

        Under softmax a node's probability is the exact sum over the labels below it, each counted
        once however many ways lead there; labels below no node of the rank are the answer
        ``(none)``. Under sigmoid it is the largest.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            rank: a rank of the taxonomy, or ``depth 2`` and so on.
            top_k: k, at least 1.
            independent: for sigmoid models, the probability of at least one label instead, as if
                they were independent of each other.

        Raises:
            EmbeddingError: see ``score``.
            LabelError: when the taxonomy has no such rank.
        """
        unit = check_embeddings(embeddings, self._info.dim)
        return self.rank_answers(rank=rank, top_k=top_k, independent=independent)(unit)

    def score_deepest(
        self,
        embeddings: npt.ArrayLike,
        *,
        floor: float,
        by_rank: Mapping[str, float] | None = None,
        independent: bool = False,
    ) -> list[NodePrediction | None]:
        """Return the deepest node that is probable enough, with all on some way up to the top.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            floor: what a node's probability has to reach, above 0 and up to 1.
            by_rank: other floors, for nodes of some ranks.
            independent: see ``score_rank``.

        Returns:
            A node for each image, or None where nothing at the top is probable enough.

        Raises:
            EmbeddingError: see ``score``.
            InputError: for a floor that is none.
            LabelError: for a rank that the taxonomy does not have.
        """
        unit = check_embeddings(embeddings, self._info.dim)
        answer = self.deepest_answers(floor=floor, by_rank=by_rank, independent=independent)
        return [line[0] if line else None for line in answer(unit)]

    def answers(
        self,
        *,
        top_k: int = DEFAULT_TOP_K,
        labels: Sequence[str] | None = None,
        encode_missing: bool = False,
        over_index: bool = False,
    ) -> Callable[[Float32], list[list[Prediction]]]:
        """Return what answers (B, D) float32 unit-norm image embeddings as ``classify`` does.

        What does not depend on the images is done now, once: arguments are those of ``classify``.
        """
        check_top_k(top_k)
        subset = self._subset(labels, encode_missing=encode_missing)
        return lambda unit: self._score(unit, top_k, subset, over_index=over_index)

    def rank_answers(
        self, *, rank: str, top_k: int = DEFAULT_TOP_K, independent: bool = False
    ) -> Callable[[Float32], list[list[NodePrediction]]]:
        """Return what answers (B, D) unit-norm embeddings as ``score_rank`` does; see ``answers``.

        Raises:
            LabelError: when the taxonomy has no such rank.
        """
        check_top_k(top_k)
        answers = self._at_rank(rank, independent=independent)
        return lambda unit: self._score_rank(unit, answers, top_k)

    def deepest_answers(
        self,
        *,
        floor: float,
        by_rank: Mapping[str, float] | None = None,
        independent: bool = False,
    ) -> Callable[[Float32], list[list[NodePrediction]]]:
        """Return what answers (B, D) unit-norm embeddings as ``score_deepest``; see ``answers``.

        It gives lists of one node, or of none.

        Raises:
            InputError: for a floor that is none.
            LabelError: for a rank that the taxonomy does not have.
        """
        _check_floors(floor, by_rank or {})
        answers = self._of_all(independent=independent)

        def answer(unit: Float32) -> list[list[NodePrediction]]:
            found = self._score_deepest(unit, answers, floor, by_rank or {})
            return [[] if node is None else [node] for node in found]

        return answer

    def names_in(self, language: str) -> dict[str, str]:
        """Return the names of all nodes in a language, by what they are known by.

        A node without a name in it keeps its own.

        Raises:
            LabelError: for a language that the taxonomy has no names in.
        """
        return self.structure.names_in(language)

    def names_of(self, label_ids: Sequence[int]) -> list[str]:
        """Return the names of labels, also of those that have left the index since."""
        found = self._held.names if self._held else self._store.label_names(label_ids)
        return [found[label_id] for label_id in label_ids]

    def keys_of(self, label_ids: Sequence[int]) -> list[str]:
        """Return what labels are known by in the taxonomy: ids of its own, or names."""
        found = self._held.keys if self._held else self._store.label_keys(label_ids)
        return [found[label_id] for label_id in label_ids]

    def hold(self) -> None:
        """Keep names, taxonomy and calibration in memory: answers are then of one moment.

        Otherwise names are read from the store when an answer needs them, and are what they are
        called then.

        Raises:
            StoreError: when the index was built again or removed meanwhile: open it again.
        """
        ids = self.label_ids.tolist()
        names, keys = self._store.label_names(ids), self._store.label_keys(ids)
        if self._info.taxonomy is not None:
            _ = self.structure
        try:
            calibration = self.kept_calibration
        except StoreError:
            # What was fitted for the index as it was before is nothing to this one.
            calibration = None
        if not self.is_current():
            raise StoreError(f"index {self._info.name!r} was built again meanwhile: open it again")
        # Most names are keys as well: one string serves for both.
        keys = {one: names[one] if key == names[one] else key for one, key in keys.items()}
        self._held = _Held(names, keys, calibration)

    def rows_of(self, labels: Sequence[str]) -> dict[str, int]:
        """Return the rows of those labels that are in this generation of the index.

        Args:
            labels: what they are known by in the taxonomy, or names that only one label has.

        Raises:
            LabelError: for a name that several labels have.
        """
        rows: dict[str, int] = {}
        for label, places in self._store.label_places(self._info.index_id, labels).items():
            here = {place.name: row for place in places if (row := self._row(place)) is not None}
            if len(here) > 1:
                keys = ", ".join(map(repr, here))
                raise LabelError(f"{label!r} is the name of {len(here)} labels: use one of {keys}")
            if here:
                rows[label] = next(iter(here.values()))
        return rows

    def stream_answers(
        self, images: Iterable[ImageSource], answer: Callable[[Float32], list[Answer]]
    ) -> Iterator[Answer | ImageError]:
        """Yield for each image what ``answer`` makes of it, or why it was refused.

        Args:
            images: any number of them.
            answer: from (B, D) float32 unit-norm image embeddings to B answers.
        """
        for refused, embeddings in self._embedded(images):
            found = iter(answer(embeddings))
            for error in refused:
                yield error or next(found)

    def encode(self, labels: Sequence[str]) -> Float32:
        """Return (n, D) float32 unit-norm embeddings of labels from outside the index.

        They are encoded with the index's templates, and kept for the next time.

        Raises:
            LabelError: for a label that the model cannot take.
            ModelError: when the index has no model.
        """
        return self._encoded(taxonomy.collect(labels).labels)

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Return what the text tower makes of prompts as they are: no template, nothing is kept.

        Raises:
            LabelError: for a prompt that the model cannot take.
            ModelError: when the index has no model.
        """
        return self._source.encoder().encode_prompts(prompts)

    def stream_embeddings(self, images: Iterable[ImageSource]) -> Iterator[Float32 | ImageError]:
        """Yield for each image its (D,) float32 unit-norm embedding, or why it was refused."""
        return self.stream_answers(images, list)

    def search(self, embeddings: npt.ArrayLike, top_k: int) -> Scan:
        """Return rows, similarities and log-partition, as arrays; see ``scan.Scan``.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            top_k: k, at least 1.

        Raises:
            EmbeddingError: see ``score``.
        """
        check_top_k(top_k)
        unit = check_embeddings(embeddings, self._info.dim)
        return self._searcher.find(unit, top_k).best

    def best(self, embeddings: npt.ArrayLike, top_k: int) -> tuple[Int64, Float64]:
        """Return (B, k) label ids and their float64 probabilities, best first, as arrays.

        Args:
            embeddings: see ``score``.
            top_k: k, at least 1.

        Raises:
            EmbeddingError: see ``score``.
        """
        found = self.search(embeddings, top_k)
        probabilities = activate(found.logits, self._info.activation, found.log_partition)
        return self.label_ids[found.rows], probabilities

    def pair_logits(self, embeddings: Float32, image: Int64, label: Int64) -> Float64:
        """Return the (P,) float64 logits of pairs of an image and a label.

        Args:
            embeddings: (B, D) float32 unit-norm image embeddings.
            image: (P,) int64 images.
            label: (P,) int64 rows of labels.
        """
        similarities = pair_similarities(
            self.embeddings, embeddings, image, label, pooling=self.pooling, scale=self.logit_scale
        )
        return self._logits(similarities, label)

    def labels_under(self, node: str) -> list[str]:
        """Return what the labels below a node, and itself, are known by, as ``labels`` takes them.

        Args:
            node: its name where only one has it, or its key.

        Raises:
            LabelError: when there is no such node, or none of its labels.
        """
        structure = self.structure
        keys = structure.taxonomy.label_keys
        found = [keys[at] for at in structure.descendants(structure.find(node)).tolist()]
        if not found:
            raise LabelError(f"{node!r} has no labels below it in index {self._info.name!r}")
        return found

    def recall(self, embeddings: npt.ArrayLike, top_k: int = 10) -> float:
        """Return the share of the exact ``top_k`` that this index finds; 1.0 for exact kinds.

        Args:
            embeddings: (B, D) floating-point embeddings of images such as will be asked about.
            top_k: k, at least 1.

        Raises:
            EmbeddingError: see ``score``.
        """
        check_top_k(top_k)
        return self._searcher.recall(
            check_embeddings(embeddings, self._info.dim), min(top_k, len(self))
        )

    def embed(self, images: ImageSource | Sequence[ImageSource]) -> Float32:
        """Return (B, D) float32 unit-norm image embeddings, as ``score`` takes them.

        Raises:
            ImageError: when an image is refused.
            ModelError: see ``classify``.
        """
        blocks = [np.empty((0, self._info.dim), dtype=np.float32)]
        for refused, embeddings in self._embedded(listed(images)):
            for error in refused:
                if error:
                    raise error
            blocks.append(embeddings)
        return np.concatenate(blocks)

    # Inside

    def _score_rank(
        self, embeddings: Float32, answers: NodeAnswers, top_k: int
    ) -> list[list[NodePrediction]]:
        groups = self._searcher.find_groups(embeddings, 1, answers.grouping).groups
        assert groups is not None, "they were asked for"
        return answers.best(groups, top_k)

    def _score_deepest(
        self,
        embeddings: Float32,
        answers: NodeAnswers,
        floor: float,
        by_rank: Mapping[str, float],
    ) -> list[NodePrediction | None]:
        least = min([floor, *by_rank.values()])
        # So many labels can reach it under softmax.
        top_k = int(min(len(self), 1 / least)) + 1
        while True:
            found = self._searcher.find_groups(embeddings, top_k, answers.grouping)
            probabilities = activate(found.logits, self._info.activation, found.log_partition)
            if found.rows.shape[1] == len(self) or (probabilities[:, -1] < least).all():
                break
            top_k *= 8
        assert found.groups is not None, "they were asked for"
        return answers.deepest(found.groups, found.rows, probabilities, floor, by_rank)

    def _at_rank(self, rank: str, *, independent: bool) -> NodeAnswers:
        return NodeAnswers.at_rank(self.structure, rank, self._reduction(independent=independent))

    def _of_all(self, *, independent: bool) -> NodeAnswers:
        return NodeAnswers.of_all(self.structure, self._reduction(independent=independent))

    def _reduction(self, *, independent: bool) -> Reduction:
        if self._info.activation == "softmax":
            if independent:
                raise InputError(
                    f"index {self._info.name!r} has a softmax model, whose probabilities add up: "
                    "independent labels are for sigmoid models"
                )
            return "sum"
        return "noisy-or" if independent else "max"

    def _score(
        self, embeddings: Float32, top_k: int, subset: _Subset | None, *, over_index: bool
    ) -> list[list[Prediction]]:
        if subset is None:
            found = self._searcher.find(embeddings, top_k)
            best = found.best
            ids = self.label_ids[best.rows]
            distinct = list(dict.fromkeys(ids.ravel().tolist()))
            known = dict(zip(distinct, self.names_of(distinct), strict=True))
            names = [[known[label_id] for label_id in line] for line in ids.tolist()]
        else:
            scanned = self._searcher.scan(
                subset.matrix,
                embeddings,
                top_k,
                pooling=subset.pooling,
                label_bias=self._bias_of(subset.label_ids),
            )
            found = Found(scanned)
            best = found.best
            ids = subset.label_ids[best.rows]
            names = [[subset.labels[row] for row in line] for line in best.rows.tolist()]
        logits = best.logits
        activation = self._info.activation
        probabilities = activate(logits, activation, best.log_partition)
        if not over_index:
            over = [[None] * ids.shape[1]] * len(ids)
        elif subset is None:
            over = probabilities.tolist()
        else:
            whole = self._searcher.find(embeddings, 1).best.log_partition
            over = activate(logits, activation, whole).tolist()
        intervals: list[list[tuple[float, float] | None]] = [[None] * ids.shape[1]] * len(ids)
        if found.low is not None:
            low = activate(logits, activation, found.high).tolist()
            high = activate(logits, activation, found.low).tolist()
            intervals = [list(zip(*line, strict=True)) for line in zip(low, high, strict=True)]
        arrays = (probabilities, logits, best.similarities, ids)
        return [
            [_prediction(*fields) for fields in zip(*line, strict=True)]
            for line in zip(
                names, *(array.tolist() for array in arrays), over, intervals, strict=True
            )
        ]

    def _logits(self, similarities: Float64, labels: Int64) -> Float64:
        """Return the logits of similarities of labels, by their places, in the same shape."""
        bias = self._bias_of(self.label_ids[labels])
        if bias is not None:
            similarities = similarities - bias
        return similarities * self.logit_scale + self.logit_bias

    def _bias_of(self, label_ids: Int64) -> Float32 | None:
        """Return what is taken from the similarities of labels; None for nothing.

        Labels from outside the index, which nothing was fitted for, have the mean of all: 0.
        """
        hubs = self._calibration and self._calibration.hubs
        return hubs.of(label_ids) if hubs else None

    def _subset(self, labels: Sequence[str] | None, *, encode_missing: bool) -> _Subset | None:
        if labels is None:
            return None
        if isinstance(labels, str):
            raise LabelError(f"labels={labels!r}: give a list of labels, not one string")
        if not len(labels):
            raise LabelError("labels is empty: give at least one, or None for all")
        wanted = taxonomy.collect(labels).labels
        rows = self.rows_of(wanted)
        missing = [label for label in wanted if label not in rows]
        if missing and not encode_missing:
            raise LabelError(self._not_here(missing[0]))
        present = [label for label in wanted if label in rows]
        at = np.array([rows[label] for label in present], dtype=np.int64)
        label_ids, pooling = self.label_ids[at], None
        if self.pooling is None:
            matrix = self.embeddings[at]
        else:
            matrix, pooling = self.embeddings[self.pooling.rows_of(at)], self.pooling.take(at)
        if missing:
            matrix = np.concatenate([matrix, self._encoded(missing)])
            label_ids = np.concatenate([label_ids, np.full(len(missing), _OUTSIDE)])
            pooling = pooling and pooling.followed_by(len(missing))
        names = self.names_of(label_ids[: len(present)].tolist())
        return _Subset([*names, *missing], label_ids, matrix, pooling)

    def _row(self, place: LabelPlace) -> int | None:
        """Return a label's place in this generation."""
        row = place.position
        if row is not None and row < len(self) and self.label_ids[row] == place.label_id:
            return row
        if self.is_current():
            return None
        # The store has gone on to another generation: this one's order is in its file alone.
        at = int(np.searchsorted(self.label_ids, place.label_id, sorter=self._order))
        row = int(self._order[min(at, len(self) - 1)])
        return row if self.label_ids[row] == place.label_id else None

    @cached_property
    def _order(self) -> Int64:
        """What sorts the label ids."""
        return np.argsort(self.label_ids)

    def _not_here(self, label: str) -> str:
        return (
            f"label {label!r} is not in index {self._info.name!r}"
            f"{nearest(label, self.labels, _NEAR)} (encode_missing takes labels from outside)"
        )

    def _check_encodes(self, label: str) -> None:
        if not self._info.templates:
            raise ModelError(
                f"index {self._info.name!r} was imported, so nothing says how to encode "
                f"{label!r} as its labels were: leave it out"
            )

    def _encoded(self, labels: Sequence[str]) -> Float32:
        self._check_encodes(labels[0])
        prompts_of = rendered(labels, self._info.templates)
        return fetch(self._store, self._source, labels, prompts_of)

    def _embedded(
        self, sources: Iterable[ImageSource]
    ) -> Iterator[tuple[list[ImageError | None], Float32]]:
        """Yield for each batch what was refused where, and the embeddings of the others."""
        return self.image_embedder().embed(sources)

    @property
    def image_fingerprint(self) -> str:
        """What image embeddings for this index depend on, but the way of decoding, hashed.

        Raises:
            ModelError: see ``image_embedder``.
        """
        return self._checkpoint.image_fingerprint

    def use_encoder(self, source: EncoderSource) -> None:
        """Use an encoder that is there already, instead of loading it again.

        Args:
            source: another index's, of the same ``image_fingerprint``.
        """
        assert source.fingerprint == self._checkpoint.fingerprint, "it is another encoder"
        self._source = source

    def image_embedder(self, limits: ImageLimits = LIMITS) -> ImageEmbedder:
        """Return what makes embeddings of images for this index.

        Args:
            limits: what is accepted as an image.

        Raises:
            ModelError: when the index has no model, or not any more the one that it was built with.
        """
        return ImageEmbedder(
            self._source,
            self.image_fingerprint,
            self._info.dim,
            decode=self._decode,
            store=self._store if self._keep_images else None,
            limits=limits,
        )

    @cached_property
    def _source(self) -> EncoderSource:
        return EncoderSource.of(self._checkpoint, device=self._device)

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        info = self._info
        if info.model_id is None:
            raise ModelError(
                f"index {info.name!r} was imported without a model: give ready embeddings to "
                "score(), or import it again with a model"
            )
        checkpoint = encoders.resolve(info.model_id, info.revision, info.dtype)
        numbers = (info.dim, info.logit_scale, info.logit_bias, info.activation)
        present = (
            checkpoint.fingerprint if info.templates else imported_fingerprint(checkpoint, *numbers)
        )
        if present != info.encoder_fingerprint:
            raise ModelError(
                f"model {info.model_id} is not any more the one that index {info.name!r} was "
                "built with (its files, or the transformers version that reads them, have "
                "changed): build the index again"
            )
        return checkpoint


def _check_floors(floor: float, by_rank: Mapping[str, float]) -> None:
    for value in (floor, *by_rank.values()):
        if not 0 < value <= 1:
            raise InputError(f"floor {value!r}: give a probability above 0 and up to 1")


def _prediction(
    label: str,
    probability: float,
    logit: float,
    similarity: float,
    label_id: int,
    over: float | None,
    interval: tuple[float, float] | None,
) -> Prediction:
    if label_id == _OUTSIDE:
        return Prediction(label, probability, logit, similarity, None)
    return Prediction(label, probability, logit, similarity, label_id, over, interval)
