"""LabelIndex: a fixed set of labels, ready to classify images against."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args, overload

import numpy.typing as npt

from zsic_index import encoders, prompts
from zsic_index.calibration import Calibration
from zsic_index.embedding_arrays import Float32, check_embeddings
from zsic_index.embeddings.label_rows import LabelRows
from zsic_index.embeddings.labels import ProgressCallback, fetch_embeddings
from zsic_index.encoders.runtime import read_runtime
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import ImageError, InputError, LabelError, StoreError
from zsic_index.images.opening import Decode, ImageSource, as_sequence
from zsic_index.index_files import IndexFiles
from zsic_index.label_index import builder, opening
from zsic_index.label_index.arguments import (
    check_logit_numbers,
    check_name,
    checked_choice,
    imported_fingerprint,
    read_taxonomy,
)
from zsic_index.label_index.contents import IndexContents
from zsic_index.label_index.encoder import IndexEncoder
from zsic_index.label_index.naming import LabelNames
from zsic_index.label_index.opening import open_index
from zsic_index.label_index.scorers import DeepestScorer, LabelScorer, RankScorer
from zsic_index.label_index.searcher import Searcher
from zsic_index.label_index.towers import write_after_build
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
    Runtime,
)
from zsic_index.store import Store
from zsic_index.taxonomy import Taxonomy


class LabelIndex(IndexContents, AbstractContextManager["LabelIndex"]):
    """A fixed set of labels, ready to classify images against; immutable.

    Make one with ``build``, ``open`` or ``from_embeddings``. The model is loaded at the first
    image, and never for ``score``. An open index stays at the generation that it opened, even when
    it is built again meanwhile.
    """

    def __init__(
        self,
        store: Store,
        info: IndexInfo,
        files: IndexFiles,
        *,
        device: str = "auto",
        runtime: Runtime | None = None,
        decode: Decode = "exact",
        keep_images: bool = False,
        report: BuildReport | None = None,
    ) -> None:
        super().__init__(
            store,
            Searcher(info, files, device),
            LabelNames(store, info, files.label_ids),
            IndexEncoder(
                store,
                info,
                device=device,
                runtime=read_runtime(runtime),
                decode=decode,
                keep_images=keep_images,
            ),
        )
        self._report = report
        self._pinned_calibration: tuple[Calibration | None] | None = None

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
        runtime: Runtime | None = None,
        dtype: Dtype = "float32",
        kind: Kind = "flat",
        name_pooling: NamePooling = "mean",
        names: NamePooling | None = None,
        progress: ProgressCallback | None = None,
        tower_progress: ProgressCallback | None = None,
    ) -> LabelIndex:
        """Build an index, encoding only what the store does not have; then open it.

        Args:
            labels: a label file (see ``taxonomy.read``), ``builtin:photo-tags`` or
                ``builtin:emoji``, or the labels themselves.
            model: ``builtin:clip``, ``builtin:siglip``, a folder, or a Hub id.
            name: name of the index; an index of that name is replaced.
            templates: strings with exactly one ``{}``, names of template sets, or text files with
                one template a line; several are averaged (each normalised, mean, normalised). By
                default the one template of transformers' pipeline.
            revision: branch, tag or commit of a Hub model.
            store: a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or the user's folder.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            runtime: library that runs the vision tower, ``auto``, ``torch``, ``onnx`` or
                ``onnx-int8``; None for ``ZSIC_RUNTIME`` or else ``auto``. Except with ``torch``,
                the tower is also written as an ONNX file if the extra ``onnx`` is installed and
                the device is a CPU. Once for each checkpoint, that takes seconds for the export
                and as long as 200 images take in both runtimes.
            dtype: dtype of both towers: ``float32``, ``bfloat16`` or ``float16``. After the towers
                everything is float32. Embeddings of another dtype are never reused.
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
            tower_progress: called with (images compared, images to compare) while an ONNX tower is
                measured.

        Raises:
            InputError: for labels, templates or a name that cannot be used.
            ModelError: when the checkpoint cannot be loaded or is not supported.
            StoreError: when the store cannot be used.
        """
        if names is not None:
            warnings.warn("names is now name_pooling", DeprecationWarning, stacklevel=2)
        label_set = read_taxonomy(labels)
        resolved = prompts.resolve(templates)
        check_name(name)
        runtime = read_runtime(runtime)
        checkpoint = encoders.resolve(model, revision, dtype)
        source = EncoderSource.of(checkpoint, device=device)
        opened = Store.open(store, create=True)
        report = builder.build(
            opened,
            name,
            label_set,
            source,
            resolved,
            kind=checked_choice(kind, Kind, "kind"),
            name_pooling=checked_choice(names or name_pooling, NamePooling, "name_pooling"),
            progress=progress,
        )
        index = cls(
            opened, *open_index(opened, name), device=device, runtime=runtime, report=report
        )
        try:
            write_after_build(
                index, checkpoint, source, device=device, runtime=runtime, progress=tower_progress
            )
        except BaseException:
            index.close()
            raise
        return index

    @classmethod
    def open(
        cls,
        name: str,
        *,
        store: str | Path | None = None,
        device: str = "auto",
        runtime: Runtime | None = None,
        decode: Decode = "exact",
        keep_images: bool = False,
    ) -> LabelIndex:
        """Open an existing index.

        Args:
            name: the index's name.
            store: see ``build``.
            device: see ``build``.
            runtime: see ``build``; ``auto`` is ONNX Runtime where the index has an ONNX tower whose
                embeddings are those of torch, and the device is a CPU.
            decode: ``exact``, or ``scaled`` to decode large JPEGs at 1/2, 1/4 or 1/8 of their size,
                several times faster, for slightly different embeddings.
            keep_images: look image embeddings up in the store, and keep new ones, by file content
                and everything else that they depend on. When all are there, no model is loaded.

        Raises:
            IndexNotFoundError: when there is no index of that name.
            StoreError: when the store cannot be used.
        """
        if decode not in get_args(Decode):
            raise InputError(f"decode {decode!r}: use {' or '.join(get_args(Decode))}")
        opened = Store.open(store)
        return cls(
            opened,
            *open_index(opened, name),
            device=device,
            runtime=runtime,
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
        """Make an index from label embeddings that were computed elsewhere.

        Args:
            labels: N distinct labels, or a file of them. Aliases are used for look-ups only: each
                label has one embedding.
            embeddings: (N, D) floating-point; each row is normalised.
            logit_scale: the multiplier, already exponentiated, > 0.
            name: the index's name.
            logit_bias: offset of the logits.
            activation: ``softmax`` or ``sigmoid``.
            kind: see ``build``.
            model: checkpoint with the vision tower that fits them; without it only ``score`` works.
            revision: branch, tag or commit of a Hub model.
            store: see ``build``.
            device: see ``build``.

        Raises:
            EmbeddingError: unless the array is (N, D) with finite, non-zero rows.
            InputError: for labels, numbers or a name that cannot be used.
        """
        checked = read_taxonomy(labels)
        if checked.duplicates:
            raise LabelError(
                f"label {checked.duplicates[0]!r} is given more than once: "
                "embeddings are matched to labels by position, so give each label once"
            )
        check_logit_numbers(logit_scale, logit_bias, activation)
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
        return cls(opened, *open_index(opened, name), device=device, report=report)

    def close(self) -> None:
        """Close the store's connections."""
        self._store.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def report(self) -> BuildReport | None:
        """Report of ``build`` or ``from_embeddings``; None for an index that was opened."""
        return self._report

    # Variants

    def with_calibration(self, calibration: Calibration | None) -> LabelIndex:
        """Return the same index, answering with a calibration; None for the model's own numbers.

        A fitted logit scale and bias replace the model's. A label bias is subtracted from
        similarities before anything else: order, log-partition, roll-up, subsets and prediction
        sets follow; the ``similarity`` of predictions stays the inner product. Both indexes share
        the store, the files and the model.

        Raises:
            InputError: when the calibration is for another activation, or has a label bias that
                this kind of index cannot use.
        """
        return self._variant(_searcher=self._searcher.with_calibration(calibration))

    def with_templates(
        self, templates: str | Path | Sequence[str | Path], *, keep: bool = True
    ) -> LabelIndex:
        """Return the same labels under other templates, in memory; the store gets no new index.

        Templates that the taxonomy itself has stay. Any calibration is left out.

        Args:
            templates: see ``build``.
            keep: whether embeddings are kept in the store, so that the next call encodes nothing;
                otherwise the store is only read.

        Raises:
            ModelError: when the index has no model.
            TemplateError: see ``prompts.resolve``.
        """
        resolved = prompts.resolve(templates)
        self._encoder.check_encodes(self.info.name)
        rows = LabelRows.from_structure(self.structure, self.info.name_pooling, resolved)
        source = self._encoder.source
        matrix = fetch_embeddings(self._store, source, rows.names, rows.prompts_of, keep=keep)
        in_row_order = matrix[rows.reorder(self.structure.row_order)]
        info = replace(self.info, templates=resolved, kind="flat")
        files = IndexFiles(self.label_ids, in_row_order, None, self._searcher.pooling)
        return self._variant(
            _searcher=self._searcher.with_files(info, files),
            _encoder=self._encoder.with_info(info),
            _report=None,
        )

    def pin(self) -> LabelIndex:
        """Return the same index with names, taxonomy and stored calibration kept in memory.

        All predictions of a pinned index are of one moment. Otherwise names are read from the
        store when a prediction needs them.

        Raises:
            StoreError: when the index was built again or removed meanwhile: open it again.
        """
        pinned = self._variant(_label_names=self._label_names.pinned())
        if self.info.taxonomy is not None:
            _ = pinned.structure
        try:
            calibration = self.find_calibration()
        except StoreError:
            # One that was fitted before the last build does not fit this generation.
            calibration = None
        pinned._pinned_calibration = (calibration,)
        if not opening.is_current(self._store, self.info):
            raise StoreError(f"index {self.info.name!r} was built again meanwhile: open it again")
        return pinned

    def _variant(self, **attributes: Any) -> Self:
        """Return a shallow copy with some attributes replaced."""
        variant = copy.copy(self)
        variant.__dict__.update(attributes)
        return variant

    def save_calibration(self, calibration: Calibration | None) -> None:
        """Save a calibration in the store, beside this index; None removes it."""
        content = None if calibration is None else calibration.to_json()
        self._store.indexes.save_calibration(self.info, content)

    def find_calibration(self) -> Calibration | None:
        """Return the calibration that is stored for this index; None without one.

        Raises:
            StoreError: when the index has changed since it was fitted.
        """
        if self._pinned_calibration is not None:
            return self._pinned_calibration[0]
        content = self._store.indexes.read_calibration(self.info)
        return None if content is None else Calibration.from_json(content)

    def load_calibration(self) -> Calibration:
        """Return the calibration that is stored for this index.

        Raises:
            InputError: when there is none.
            StoreError: when the index has changed since it was fitted.
        """
        calibration = self.find_calibration()
        if calibration is None:
            raise InputError(
                f"index {self.info.name!r} has no calibration: run 'zsic-index calibrate'"
            )
        return calibration

    # Classification

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
            encode_missing: encode members of ``labels`` that are not in the index with its
                templates, and keep their embeddings; otherwise they are an error.
            over_index: also give each prediction's ``index_probability``.

        Raises:
            ImageError: when an image is refused; ``stream`` goes on instead.
            LabelError: when one of ``labels`` is not in the index; the message names the nearest.
            ModelError: when the index has no model, or the model has changed since it was built.
        """
        predictions = []
        for result in self.stream(
            as_sequence(images),
            top_k=top_k,
            labels=labels,
            encode_missing=encode_missing,
            over_index=over_index,
        ):
            if isinstance(result, ImageError):
                raise result
            predictions.append(result)
        return predictions[0] if isinstance(images, ImageSource) else predictions

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
        scorer = LabelScorer(
            self, top_k=top_k, labels=labels, encode_missing=encode_missing, over_index=over_index
        )
        return self._encoder.stream(images, scorer)

    def stream_rank(
        self,
        images: Iterable[ImageSource],
        *,
        rank: str,
        top_k: int = DEFAULT_TOP_K,
        independent: bool = False,
    ) -> Iterator[list[NodePrediction] | ImageError]:
        """Roll any number of images up to a rank; see ``score_rank`` and ``stream``."""
        scorer = RankScorer(self, rank=rank, top_k=top_k, independent=independent)
        return self._encoder.stream(images, scorer)

    def stream_deepest(
        self,
        images: Iterable[ImageSource],
        *,
        floor: float,
        by_rank: Mapping[str, float] | None = None,
        independent: bool = False,
    ) -> Iterator[list[NodePrediction] | ImageError]:
        """Find the deepest node for any number of images; see ``score_deepest`` and ``stream``.

        Yields for each image a list of one node, or an empty list.
        """
        scorer = DeepestScorer(self, floor=floor, by_rank=by_rank, independent=independent)
        return self._encoder.stream(images, scorer)

    def probabilities(self, images: ImageSource | Sequence[ImageSource]) -> Float32:
        """Return the probability of every label: (B, N) float32 in row order, for small N.

        Raises:
            ImageError: when an image is refused.
            ModelError: see ``classify``.
        """
        return self._searcher.all_probabilities(self.embed(images))

    def embed(self, images: ImageSource | Sequence[ImageSource]) -> Float32:
        """Return (B, D) float32 unit-norm image embeddings, as ``score`` takes them.

        Raises:
            ImageError: when an image is refused.
            ModelError: see ``classify``.
        """
        return self._encoder.embed_images(as_sequence(images))

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
        queries = check_embeddings(embeddings, self.info.dim)
        return LabelScorer(self, top_k=top_k, labels=labels, over_index=over_index)(queries)

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
        once, however many paths lead there; labels below no node of the rank are the prediction
        ``(none)``. Under sigmoid it is the largest of them.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            rank: a rank of the taxonomy, or ``depth 2`` and so on.
            top_k: k, at least 1.
            independent: for sigmoid models, give the probability that at least one label below
                the node applies, as if they were independent of each other.

        Raises:
            EmbeddingError: see ``score``.
            LabelError: when the taxonomy has no such rank.
        """
        queries = check_embeddings(embeddings, self.info.dim)
        return RankScorer(self, rank=rank, top_k=top_k, independent=independent)(queries)

    def score_deepest(
        self,
        embeddings: npt.ArrayLike,
        *,
        floor: float,
        by_rank: Mapping[str, float] | None = None,
        independent: bool = False,
    ) -> list[NodePrediction | None]:
        """Return the deepest node that, with all nodes on some path above it, is probable enough.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            floor: least probability of a node, above 0 and up to 1.
            by_rank: other floors, for nodes of some ranks.
            independent: see ``score_rank``.

        Returns:
            A node for each image, or None where nothing at the top is probable enough.

        Raises:
            EmbeddingError: see ``score``.
            InputError: for a floor out of range.
            LabelError: for a rank that the taxonomy does not have.
        """
        queries = check_embeddings(embeddings, self.info.dim)
        scorer = DeepestScorer(self, floor=floor, by_rank=by_rank, independent=independent)
        return [nodes[0] if nodes else None for nodes in scorer(queries)]

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name == "use":
                raise AttributeError(
                    "LabelIndex.use is gone, an index is immutable: "
                    "with_calibration() returns one that answers with a calibration"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
