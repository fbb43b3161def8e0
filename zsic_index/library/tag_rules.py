"""Decide about tags: the labels that a photo gets, and the keyword paths that they become."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

import numpy as np

from zsic_index.calibration import PrecisionThresholds
from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.errors import InputError
from zsic_index.label_index import LabelIndex
from zsic_index.library.sidecars.keywords import (
    DEFAULT_ROOT,
    TagPath,
    check_root,
    check_tag,
    folded_path,
)
from zsic_index.querying.decider import label_floors
from zsic_index.querying.thresholds import Thresholds
from zsic_index.store.photo_records import StoredTag, VerdictName

logger = logging.getLogger("zsic_index")

DEFAULT_THRESHOLD = 0.1
"""Default smallest probability that makes a label a tag."""

DEFAULT_MAX_TAGS = 10
"""Default largest number of labels per photo."""

_MIN_CANDIDATES = 50
"""Smallest number of labels per photo to consider where only some labels are allowed."""


@dataclass(frozen=True, slots=True)
class TagSettings:
    """Settings of the tags that labels become.

    Attributes:
        root: first level of every tag.
        max_tags: largest number of labels per photo, not counting labels that the user accepted.
        only: nodes of the taxonomy; only labels at and below them are given. Empty for all.
        exclude: nodes of the taxonomy; labels at and below them are never given.
        ancestors: whether the nodes above a label are given as tags too.
        language: language of names; None for the taxonomy's own names.
    """

    root: str = DEFAULT_ROOT
    max_tags: int = DEFAULT_MAX_TAGS
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ancestors: bool = False
    language: str | None = None


class TagRules:
    """Rules by which an index gives tags to photos."""

    def __init__(
        self,
        index: LabelIndex,
        settings: TagSettings,
        thresholds: Thresholds | PrecisionThresholds,
        own_thresholds: Mapping[int, float],
    ) -> None:
        """Create rules.

        Args:
            index: the index whose labels become tags, with the calibration that it is to use.
            settings: settings of the tags.
            thresholds: smallest probabilities that make labels tags.
            own_thresholds: thresholds of single labels by id, which replace the others.

        Raises:
            InputError: for an invalid root.
            LabelError: for a node or a language that the taxonomy does not have.
        """
        self.index = index
        self._settings = settings
        self._thresholds = thresholds
        self._own = dict(own_thresholds)
        self._root = check_root(settings.root)
        self._names = index.structure.names_in(settings.language) if settings.language else None
        self._only = self._ids_under(settings.only) if settings.only else None
        self._never = self._ids_under(settings.exclude)
        self._floors: dict[int, float] = {}
        self._paths: dict[int, TagPath | None] = {}

    @cached_property
    def digest(self) -> bytes:
        """Sha256 of everything that tags depend on, except the embedding and verdicts."""
        index = self.index
        parts: list[Any] = [
            index.info.plan,
            index.searcher.calibration and index.searcher.calibration.to_json(),
            asdict(self._settings),
            _to_record(self._thresholds),
            sorted(self._own.items()),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    def decision(self, embedding_key: bytes) -> bytes:
        """Return the sha256 of everything that a photo's tags depend on, except verdicts.

        Args:
            embedding_key: key of its embedding in the store.
        """
        return hashlib.sha256(self.digest + embedding_key).digest()

    def decide(
        self, embeddings: Float32, verdicts: Sequence[Mapping[int, VerdictName]]
    ) -> list[list[StoredTag]]:
        """Return the tags of B photos, most probable first.

        Args:
            embeddings: (B, D) float32, unit norm.
            verdicts: the user's verdicts on each photo, by label id.
        """
        if not len(embeddings):
            return []
        most = self._settings.max_tags
        if self._only is None and not self._never:
            # Enough labels are left even when all verdicts on a photo are rejections.
            candidates = most + max(map(len, verdicts))
        else:
            candidates = max(_MIN_CANDIDATES, 5 * most)
        label_ids, probabilities = self.index.searcher.best_labels(embeddings, candidates)
        reached = probabilities >= self.floors_of(label_ids)
        return [
            self._tags_of(embedding, of_photo, ids[enough].tolist(), values[enough].tolist())
            for embedding, of_photo, ids, values, enough in zip(
                embeddings, verdicts, label_ids, probabilities, reached, strict=True
            )
        ]

    def floors_of(self, label_ids: Int64) -> Float64:
        """Return the smallest probability that makes each label a tag, in the shape given."""
        distinct, inverse = np.unique(label_ids, return_inverse=True)
        ids = distinct.tolist()
        missing = [label_id for label_id in ids if label_id not in self._floors]
        if missing:
            floors = label_floors(self.index, self._thresholds, np.array(missing))
            self._floors |= dict(zip(missing, floors.tolist(), strict=True))
            self._floors |= {key: self._own[key] for key in missing if key in self._own}
        return np.array([self._floors[key] for key in ids])[inverse].reshape(label_ids.shape)

    def _tags_of(
        self,
        embedding: Float32,
        verdicts: Mapping[int, VerdictName],
        label_ids: list[int],
        probabilities: list[float],
    ) -> list[StoredTag]:
        """Return the tags of one photo.

        Args:
            embedding: (D,) float32.
            verdicts: the user's verdicts on the photo, by label id.
            label_ids: labels that reach their thresholds, most probable first.
            probabilities: of these labels.
        """
        allowed = (
            (label_id, probability)
            for label_id, probability in zip(label_ids, probabilities, strict=True)
            if self._is_allowed(label_id) and verdicts.get(label_id) != "rejected"
        )
        labels = dict(islice(allowed, self._settings.max_tags))
        accepted = [
            label_id
            for label_id, verdict in verdicts.items()
            if verdict == "accepted" and label_id not in labels
        ]
        if accepted:
            labels |= self._probabilities_of(embedding, accepted)
        tags: dict[TagPath, StoredTag] = {}
        index_id = self.index.info.index_id
        for label_id, probability in sorted(labels.items(), key=lambda pair: -pair[1]):
            path = self._path_of(label_id)
            if path is not None:
                tag = StoredTag(index_id, path, label_id, probability)
                tags.setdefault(_folded(path), tag)
        if self._settings.ancestors:
            for tag in list(tags.values()):
                for length in range(2, len(tag.path)):
                    above = tag.path[:length]
                    tags.setdefault(_folded(above), StoredTag(index_id, above))
        return list(tags.values())

    def _is_allowed(self, label_id: int) -> bool:
        return label_id not in self._never and (self._only is None or label_id in self._only)

    def _probabilities_of(self, embedding: Float32, label_ids: Sequence[int]) -> dict[int, float]:
        """Return the probabilities of those labels that the index still has."""
        keys = self.index.label_names.keys_of(label_ids)
        rows = self.index.label_names.rows_of(keys)
        present = [key for key in keys if key in rows]
        if not present:
            return {}
        (predictions,) = self.index.score(
            embedding, top_k=len(present), labels=present, over_index=True
        )
        return {
            prediction.label_id: prediction.index_probability
            for prediction in predictions
            if prediction.label_id is not None and prediction.index_probability is not None
        }

    def _path_of(self, label_id: int) -> TagPath | None:
        """Return the path of a label's tag; None for one that keywords cannot contain."""
        if label_id not in self._paths:
            self._paths[label_id] = self._make_path(label_id)
        return self._paths[label_id]

    def _make_path(self, label_id: int) -> TagPath | None:
        structure = self.index.structure
        taxonomy = structure.taxonomy
        (key,) = self.index.label_names.keys_of([label_id])
        nodes = structure.path_to(structure.find(key))
        names = self._names
        parts = [
            taxonomy.names[node] if names is None else names[taxonomy.keys[node]] for node in nodes
        ]
        try:
            return check_tag((self._root, *parts))
        except InputError as error:
            logger.warning("%s; photos do not get it", error)
            return None

    def _ids_under(self, nodes: Iterable[str]) -> frozenset[int]:
        index = self.index
        rows = [
            row
            for node in nodes
            for row in index.label_names.rows_of(index.labels_under(node)).values()
        ]
        return frozenset(index.label_ids[rows].tolist())


# The same few paths recur on every photo.
_folded = lru_cache(maxsize=1 << 16)(folded_path)


def _to_record(thresholds: Thresholds | PrecisionThresholds) -> Any:
    if isinstance(thresholds, Thresholds):
        return asdict(thresholds)
    return [thresholds.overall, thresholds.label_ids.tolist(), thresholds.thresholds.tolist()]
