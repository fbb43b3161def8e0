"""Scorers: from image embeddings to predictions, with all that does not depend on images done once.

A scorer is made from an index and called with (B, D) float32 unit-norm image embeddings; it returns
a list of predictions for each image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.label_index.arguments import check_top_k
from zsic_index.label_index.contents import IndexContents
from zsic_index.label_index.node_scores import NodeScores
from zsic_index.label_index.searcher import SearchResult
from zsic_index.label_index.subset import OUTSIDE, Subset
from zsic_index.records import DEFAULT_TOP_K, NodePrediction, Prediction
from zsic_index.scan.groups import Reduction
from zsic_index.scan.probabilities import activate


class LabelScorer:
    """Returns the k most probable labels, best first.

    Args:
        index: the index.
        top_k: k, at least 1.
        labels: limit probabilities to these labels; None for all.
        encode_missing: encode members of ``labels`` that are not in the index.
        over_index: also give ``index_probability``.

    Raises:
        InputError: for a bad ``top_k``.
        LabelError: see ``LabelIndex.classify``.
    """

    def __init__(
        self,
        index: IndexContents,
        *,
        top_k: int = DEFAULT_TOP_K,
        labels: Sequence[str] | None = None,
        encode_missing: bool = False,
        over_index: bool = False,
    ) -> None:
        check_top_k(top_k)
        self._index = index
        self._top_k = top_k
        self._over_index = over_index
        self._subset = (
            None if labels is None else Subset.of(index, labels, encode_missing=encode_missing)
        )

    def __call__(self, embeddings: Float32) -> list[list[Prediction]]:
        """Return k predictions for each of (B, D) float32 unit-norm image embeddings."""
        searcher, subset = self._index.searcher, self._subset
        if subset is None:
            result = searcher.find(embeddings, self._top_k)
            label_ids = self._index.label_ids[result.best.rows]
            names = self._names_of(label_ids)
        else:
            result = SearchResult(
                searcher.scan(
                    subset.matrix,
                    embeddings,
                    self._top_k,
                    pooling=subset.pooling,
                    label_bias=searcher.label_bias_of(subset.label_ids),
                )
            )
            label_ids = subset.label_ids[result.best.rows]
            names = [[subset.labels[row] for row in line] for line in result.best.rows.tolist()]
        best, activation = result.best, self._index.info.activation
        probabilities = activate(best.logits, activation, best.log_partition)
        arrays = (probabilities, best.logits, best.similarities, label_ids)
        return [
            [_prediction(*fields) for fields in zip(*line, strict=True)]
            for line in zip(
                names,
                *(array.tolist() for array in arrays),
                self._index_probabilities(embeddings, best.logits, probabilities),
                self._intervals(result),
                strict=True,
            )
        ]

    def _names_of(self, label_ids: Int64) -> list[list[str]]:
        distinct = list(dict.fromkeys(label_ids.ravel().tolist()))
        names = dict(zip(distinct, self._index.label_names.names_of(distinct), strict=True))
        return [[names[label_id] for label_id in line] for line in label_ids.tolist()]

    def _index_probabilities(
        self, embeddings: Float32, logits: Float64, probabilities: Float64
    ) -> list[list[float | None]]:
        """Return (B, k) probabilities over the whole index; None where they are not wanted."""
        over_index: list[list[float | None]]
        if not self._over_index:
            return [[None] * logits.shape[1]] * len(logits)
        if self._subset is None:
            over_index = probabilities.tolist()
            return over_index
        partition = self._index.searcher.find(embeddings, 1).best.log_partition
        over_index = activate(logits, self._index.info.activation, partition).tolist()
        return over_index

    def _intervals(self, result: SearchResult) -> list[list[tuple[float, float] | None]]:
        """Return the (B, k) 95 % intervals of probabilities; None where they are exact."""
        logits, activation = result.best.logits, self._index.info.activation
        if result.low is None:
            return [[None] * logits.shape[1]] * len(logits)
        # The larger the partition, the smaller the probability.
        low = activate(logits, activation, result.high).tolist()
        high = activate(logits, activation, result.low).tolist()
        return [list(zip(*line, strict=True)) for line in zip(low, high, strict=True)]


class RankScorer:
    """Returns the k most probable nodes of a rank, best first.

    Args:
        index: the index.
        rank: a rank of the taxonomy, or ``depth 2`` and so on.
        top_k: k, at least 1.
        independent: see ``LabelIndex.score_rank``.

    Raises:
        InputError: for a bad ``top_k``, or independent labels under softmax.
        LabelError: when the taxonomy has no such rank.
    """

    def __init__(
        self,
        index: IndexContents,
        *,
        rank: str,
        top_k: int = DEFAULT_TOP_K,
        independent: bool = False,
    ) -> None:
        check_top_k(top_k)
        self._searcher = index.searcher
        self._top_k = top_k
        reduction = _reduction(index, independent=independent)
        self._nodes = NodeScores.at_rank(index.structure, rank, reduction)

    def __call__(self, embeddings: Float32) -> list[list[NodePrediction]]:
        """Return k predictions for each of (B, D) float32 unit-norm image embeddings."""
        groups = self._searcher.find_groups(embeddings, 1, self._nodes.grouping).groups
        assert groups is not None, "a scan with a grouping has groups"
        return self._nodes.best(groups, self._top_k)


class DeepestScorer:
    """Returns the deepest node that is probable enough: a list of one, or of none.

    Args:
        index: the index.
        floor: least probability of a node, above 0 and up to 1.
        by_rank: other floors, for nodes of some ranks.
        independent: see ``LabelIndex.score_rank``.

    Raises:
        InputError: for a floor out of range, or independent labels under softmax.
        LabelError: for a rank that the taxonomy does not have.
    """

    def __init__(
        self,
        index: IndexContents,
        *,
        floor: float,
        by_rank: Mapping[str, float] | None = None,
        independent: bool = False,
    ) -> None:
        self._index = index
        self._floor = floor
        self._by_rank = by_rank or {}
        for value in (floor, *self._by_rank.values()):
            if not 0 < value <= 1:
                raise InputError(f"floor {value!r}: give a probability above 0 and up to 1")
        reduction = _reduction(index, independent=independent)
        self._nodes = NodeScores.of_all(index.structure, reduction)

    def __call__(self, embeddings: Float32) -> list[list[NodePrediction]]:
        """Return up to one node for each of (B, D) float32 unit-norm image embeddings."""
        labels, activation = len(self._index), self._index.info.activation
        least = min([self._floor, *self._by_rank.values()])
        # Under softmax no more labels than this can reach the floor.
        top_k = int(min(labels, 1 / least)) + 1
        while True:
            scan = self._index.searcher.find_groups(embeddings, top_k, self._nodes.grouping)
            probabilities = activate(scan.logits, activation, scan.log_partition)
            if scan.rows.shape[1] == labels or (probabilities[:, -1] < least).all():
                break
            top_k *= 8
        assert scan.groups is not None, "a scan with a grouping has groups"
        nodes = self._nodes.deepest(
            scan.groups, scan.rows, probabilities, self._floor, self._by_rank
        )
        return [[] if node is None else [node] for node in nodes]


def _reduction(index: IndexContents, *, independent: bool) -> Reduction:
    if index.info.activation == "softmax":
        if independent:
            raise InputError(
                f"index {index.info.name!r} has a softmax model, whose probabilities add up: "
                "independent labels are for sigmoid models"
            )
        return "sum"
    return "noisy-or" if independent else "max"


def _prediction(
    label: str,
    probability: float,
    logit: float,
    similarity: float,
    label_id: int,
    index_probability: float | None,
    interval: tuple[float, float] | None,
) -> Prediction:
    if label_id == OUTSIDE:
        return Prediction(label, probability, logit, similarity, None)
    return Prediction(label, probability, logit, similarity, label_id, index_probability, interval)
