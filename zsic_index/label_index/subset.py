"""Subsets of an index's labels, to which a query can be limited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zsic_index import taxonomy
from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import LabelError
from zsic_index.label_index.contents import IndexContents
from zsic_index.scan.pooling import Pooling
from zsic_index.taxonomy.names import suggest_names

OUTSIDE = -1
"""Stands for the label id of a label that is not in the index."""

_MIN_SUGGESTION_SCORE = 70.0
"""Minimum fuzzy score (0 to 100) for a did-you-mean suggestion."""


@dataclass(frozen=True, slots=True)
class Subset:
    """Labels that a query is limited to, with their embeddings.

    Attributes:
        labels: n names.
        label_ids: (n,) int64, OUTSIDE for a label that is not in the index.
        matrix: (n, D) float32 unit-norm embeddings, or with pooling one row for each name.
        pooling: rows that are names of one label; None where each label has one row.
    """

    labels: list[str]
    label_ids: Int64
    matrix: Float32
    pooling: Pooling | None

    @classmethod
    def of(cls, index: IndexContents, labels: Sequence[str], *, encode_missing: bool) -> Subset:
        """Return the subset of an index that has some labels.

        Args:
            index: the index.
            labels: keys or names.
            encode_missing: encode labels that are not in the index; otherwise they are an error.

        Raises:
            LabelError: for no labels, a name of several labels, or a label that is not in the
                index; the message names the nearest.
            ModelError: when a label has to be encoded and the index has no model.
        """
        if isinstance(labels, str):
            raise LabelError(f"labels={labels!r}: give a list of labels, not one string")
        if not len(labels):
            raise LabelError("labels is empty: give at least one, or None for all")
        distinct = taxonomy.collect(labels).labels
        row_of = index.label_names.rows_of(distinct)
        missing = [label for label in distinct if label not in row_of]
        if missing and not encode_missing:
            raise LabelError(
                f"label {missing[0]!r} is not in index {index.info.name!r}"
                f"{suggest_names(missing[0], index.labels, _MIN_SUGGESTION_SCORE)} "
                "(encode_missing takes labels from outside)"
            )
        rows = np.array([row_of[label] for label in distinct if label in row_of], dtype=np.int64)
        names = index.label_names.names_of(index.label_ids[rows].tolist())
        pooling = index.searcher.pooling
        if pooling is None:
            matrix = index.embeddings[rows]
        else:
            matrix, pooling = index.embeddings[pooling.rows_of(rows)], pooling.take(rows)
        label_ids = index.label_ids[rows]
        if missing:
            matrix = np.concatenate([matrix, index.encoder.encode_labels(missing)])
            label_ids = np.concatenate([label_ids, np.full(len(missing), OUTSIDE)])
            pooling = pooling and pooling.followed_by(len(missing))
        return cls([*names, *missing], label_ids, matrix, pooling)
