"""Search of one open index, whatever its kind: best rows, log-partition, logits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from zsic_index.calibration import Calibration, pair_similarities
from zsic_index.embedding_arrays import Float32, Float64, Int64, check_embeddings
from zsic_index.errors import InputError, is_out_of_memory
from zsic_index.index_files import ApproximateSearch, HalfPrecision, IndexFiles
from zsic_index.index_files.approximate_search import CANDIDATES, compute_recall
from zsic_index.label_index.arguments import check_top_k
from zsic_index.label_index.gpu_copy import GpuCopy
from zsic_index.records import IndexInfo
from zsic_index.scan import sampled
from zsic_index.scan.exact import scan
from zsic_index.scan.groups import Grouping
from zsic_index.scan.pooling import Pooling
from zsic_index.scan.probabilities import activate, log_sum_exp
from zsic_index.scan.sampled import Sample
from zsic_index.scan.spec import Float16, ScanResult, similarities_of

_OVERFETCH = 4
"""Rows that an approximate kind fetches for each requested one."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Best rows of B queries, and how certain the log-partition is.

    Attributes:
        best: rows, similarities, logits and log-partition.
        low: (B,) float64 lower end of the log-partition's 95 % interval; None where it is exact.
        high: (B,) float64 upper end; None where it is exact.
    """

    best: ScanResult
    low: Float64 | None = None
    high: Float64 | None = None


class Searcher:
    """Immutable search over one open index; memory does not grow with N, but for a GPU's copy.

    Attributes:
        info: the index.
        files: its open files.
        calibration: fitted numbers that logits are made with; None for the model's own.
        logit_scale: multiplier of similarities.
        logit_bias: offset of logits.

    Raises:
        InputError: when the calibration is for another activation, or has a label bias that this
            kind of index cannot use.
    """

    def __init__(
        self,
        info: IndexInfo,
        files: IndexFiles,
        device: str,
        calibration: Calibration | None = None,
        *,
        gpu_copy: GpuCopy | None = None,
    ) -> None:
        if calibration is not None:
            _check_fits(calibration, info)
        self.info = info
        self.files = files
        self.calibration = calibration
        fit = calibration and calibration.fit
        self.logit_scale = fit.scale if fit else info.logit_scale
        self.logit_bias = fit.bias if fit else info.logit_bias
        self._device = device
        self._gpu_copy = gpu_copy or GpuCopy(info, files, device)
        self._label_bias = self.label_bias_of(files.label_ids)

    def with_calibration(self, calibration: Calibration | None) -> Searcher:
        """Return a searcher over the same files, GPU copy included, with other numbers."""
        return Searcher(self.info, self.files, self._device, calibration, gpu_copy=self._gpu_copy)

    def with_files(self, info: IndexInfo, files: IndexFiles) -> Searcher:
        """Return a searcher over other files, on the same device, with the model's own numbers."""
        return Searcher(info, files, self._device)

    @property
    def pooling(self) -> Pooling | None:
        """Rows that are names of one label; None where each label has one row."""
        return self.files.pooling

    def search(self, embeddings: npt.ArrayLike, top_k: int) -> ScanResult:
        """Return rows, similarities, logits and log-partition as arrays.

        Args:
            embeddings: (B, D) or (D,) floating-point image embeddings; each row is normalised.
            top_k: k, at least 1.

        Raises:
            EmbeddingError: for another shape or dtype, NaN, infinity, or a row of norm 0.
        """
        check_top_k(top_k)
        return self.find(check_embeddings(embeddings, self.info.dim), top_k).best

    def best_labels(self, embeddings: npt.ArrayLike, top_k: int) -> tuple[Int64, Float64]:
        """Return (B, k) label ids and their float64 probabilities, best first; see ``search``."""
        best = self.search(embeddings, top_k)
        probabilities = activate(best.logits, self.info.activation, best.log_partition)
        return self.files.label_ids[best.rows], probabilities

    def all_probabilities(self, queries: Float32) -> Float32:
        """Return the probability of every label, (B, N) float32 in row order, for small N."""
        similarities = (queries @ self.files.matrix.T).astype(np.float64)
        if self.pooling is not None:
            similarities = self.pooling.similarities(similarities, self.logit_scale)
        logits = self.logits(similarities, np.arange(len(self.files.label_ids)))
        partition = log_sum_exp(logits)
        return activate(logits, self.info.activation, partition).astype(np.float32)

    def pair_logits(self, embeddings: Float32, image: Int64, label: Int64) -> Float64:
        """Return the (P,) float64 logits of pairs of an image and a label.

        Args:
            embeddings: (B, D) float32 unit-norm image embeddings.
            image: (P,) int64 places in ``embeddings``.
            label: (P,) int64 rows of labels.
        """
        similarities = pair_similarities(
            self.files.matrix,
            embeddings,
            image,
            label,
            pooling=self.pooling,
            scale=self.logit_scale,
        )
        return self.logits(similarities, label)

    def logits(self, similarities: Float64, labels: Int64) -> Float64:
        """Return the logits of similarities with labels, given by row; shapes broadcast."""
        label_bias = self.label_bias_of(self.files.label_ids[labels])
        if label_bias is not None:
            similarities = similarities - label_bias
        return similarities * self.logit_scale + self.logit_bias

    def label_bias_of(self, label_ids: Int64) -> Float32 | None:
        """Return the bias that is subtracted from the similarities of labels; None without one.

        A label from outside the index, which no bias was fitted for, gets the mean of all: 0.
        """
        hubs = self.calibration and self.calibration.hubs
        return hubs.of(label_ids) if hubs else None

    def find(self, queries: Float32, top_k: int) -> SearchResult:
        """Find the ``top_k`` best rows for (B, D) float32 unit-norm queries."""
        match self.files.first_pass:
            case HalfPrecision() | None if (best := self._scan_on_gpu(queries, top_k)) is not None:
                return SearchResult(best)
            case HalfPrecision() as half:
                return SearchResult(
                    self._scan_index(
                        half.matrix,
                        queries,
                        top_k,
                        exact=self.files.matrix,
                        rounding=half.rounding,
                    )
                )
            case ApproximateSearch() as approximate if max(CANDIDATES, _OVERFETCH * top_k) < (
                self.info.labels
            ):
                return self._search_approximately(approximate, queries, top_k)
            case _:
                return SearchResult(self._scan_index(self.files.matrix, queries, top_k))

    def find_groups(self, queries: Float32, top_k: int, grouping: Grouping) -> ScanResult:
        """Find the ``top_k`` best rows in one exact pass that also reduces groups of rows.

        The groups of an index of kind ``float16`` are reduced on the CPU, from the float32 matrix.
        """
        if not isinstance(self.files.first_pass, HalfPrecision):
            best = self._scan_on_gpu(queries, top_k, grouping)
            if best is not None:
                return best
        return self._scan_index(self.files.matrix, queries, top_k, grouping=grouping)

    def scan(
        self,
        matrix: Float32 | Float16,
        queries: Float32,
        top_k: int,
        *,
        pooling: Pooling | None,
        label_bias: Float32 | None,
        exact: Float32 | None = None,
        rounding: float = 0.0,
        grouping: Grouping | None = None,
    ) -> ScanResult:
        """Scan a label matrix exactly, with the index's scale, bias and activation."""
        return scan(
            matrix,
            queries,
            top_k,
            exact=exact,
            rounding=rounding,
            logit_scale=self.logit_scale,
            logit_bias=self.logit_bias,
            pooling=pooling,
            label_bias=label_bias,
            partition=self._is_softmax,
            grouping=grouping,
        )

    def recall(self, embeddings: npt.ArrayLike, top_k: int = 10) -> float:
        """Return the share of the exact ``top_k`` that ``search`` finds; 1.0 for exact kinds.

        Args:
            embeddings: (B, D) floating-point embeddings of images like those to be classified.
            top_k: k, at least 1.

        Raises:
            EmbeddingError: see ``search``.
        """
        check_top_k(top_k)
        queries = check_embeddings(embeddings, self.info.dim)
        top_k = min(top_k, len(self.files.label_ids))
        exact = self._scan_index(self.files.matrix, queries, top_k)
        return compute_recall(self.find(queries, top_k).best.rows, exact.rows)

    def _scan_index(
        self,
        matrix: Float32 | Float16,
        queries: Float32,
        top_k: int,
        *,
        exact: Float32 | None = None,
        rounding: float = 0.0,
        grouping: Grouping | None = None,
    ) -> ScanResult:
        return self.scan(
            matrix,
            queries,
            top_k,
            pooling=self.pooling,
            label_bias=self._label_bias,
            exact=exact,
            rounding=rounding,
            grouping=grouping,
        )

    def _search_approximately(
        self, approximate: ApproximateSearch, queries: Float32, top_k: int
    ) -> SearchResult:
        rows = approximate.search(queries, max(CANDIDATES, _OVERFETCH * top_k))
        if (rows[:, :top_k] < 0).any():
            # HNSW can return fewer than k rows; fall back to the exact scan.
            return SearchResult(self._scan_index(self.files.matrix, queries, top_k))
        similarities = np.full(rows.shape, -np.inf)
        for query, row_line, similarity_line in zip(queries, rows, similarities, strict=True):
            present = row_line >= 0
            similarity_line[present] = similarities_of(self.files.matrix, row_line[present], query)
        order = np.lexsort((rows, -similarities))
        rows = np.take_along_axis(rows, order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
        scale, bias = self.logit_scale, self.logit_bias
        best_rows, best = rows[:, :top_k], similarities[:, :top_k]
        logits = best * scale + bias
        if not self._is_softmax:
            return SearchResult(ScanResult(best_rows, best, logits, None))
        partition = sampled.estimate(self._sample, queries, rows, similarities * scale, scale)
        return SearchResult(
            ScanResult(best_rows, best, logits, partition.log_partition + bias),
            partition.low + bias,
            partition.high + bias,
        )

    def _scan_on_gpu(
        self, queries: Float32, top_k: int, grouping: Grouping | None = None
    ) -> ScanResult | None:
        """Scan the index on a GPU; return None where it must be scanned on the CPU."""
        matrix = self._gpu_copy.matrix(reduced=self.pooling is not None or grouping is not None)
        if matrix is None:
            return None
        try:
            return matrix.scan(
                queries,
                top_k,
                logit_scale=self.logit_scale,
                logit_bias=self.logit_bias,
                pooling=self.pooling,
                label_bias=self._label_bias,
                partition=self._is_softmax,
                grouping=grouping,
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # The error's frames still hold the block, so scan outside of this block.
        self._gpu_copy.give_up()
        return None

    @property
    def _is_softmax(self) -> bool:
        return self.info.activation == "softmax"

    @cached_property
    def _sample(self) -> Sample:
        return sampled.draw(self.files.matrix)


def check_takes_label_bias(info: IndexInfo) -> None:
    """Raise an InputError for an index whose search cannot take a label bias into account."""
    if info.kind in ("hnsw", "ivf"):
        raise InputError(
            f"index {info.name!r} is of kind {info.kind}, which is searched by similarity alone: "
            "for a label bias build it with kind 'flat' or 'float16'"
        )


def _check_fits(calibration: Calibration, info: IndexInfo) -> None:
    if calibration.activation != info.activation:
        raise InputError(
            f"the calibration is for {calibration.activation}, index {info.name!r} has "
            f"{info.activation}: calibrate this index"
        )
    if calibration.hubs is not None:
        check_takes_label_bias(info)
