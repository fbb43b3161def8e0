"""From image embeddings to tags: which labels a photo gets, and what they are called."""

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

DEFAULT_MAX_TAGS = 10

_CANDIDATES = 50
"""Labels per photo that are looked at, at least, where only some may be given."""


@dataclass(frozen=True, slots=True)
class TagSettings:
    """How labels become tags.

    Attributes:
        root: the first level of every tag.
        max_tags: how many labels a photo gets at most; accepted ones come on top.
        only: nodes of the taxonomy; only labels at and below them are given. Empty for all.
        exclude: nodes of the taxonomy; labels at and below them are never given.
        ancestors: whether the nodes above a label are tags of their own too.
        language: the language of names; None for the taxonomy's own names.
    """

    root: str = DEFAULT_ROOT
    max_tags: int = DEFAULT_MAX_TAGS
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ancestors: bool = False
    language: str | None = None


class TagRules:
    """Gives photos their tags."""

    def __init__(
        self,
        index: LabelIndex,
        settings: TagSettings,
        thresholds: Thresholds | PrecisionThresholds,
        own_thresholds: Mapping[int, float],
    ) -> None:
        """Prepare decisions.

        Args:
            index: whose labels become tags; with its calibration, if it is to have one.
            settings: how.
            thresholds: the probabilities from which on labels become tags.
            own_thresholds: those of single labels, by id, in the place of the others.

        Raises:
            InputError: for a root that will not do.
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
        """32 bytes that stand for all that tags depend on, but the embedding and verdicts.

        With the scale and bias that the index has when it is first asked for.
        """
        index = self.index
        parts: list[Any] = [
            index.info.plan,
            index.searcher.calibration and index.searcher.calibration.to_json(),
            asdict(self._settings),
            _described(self._thresholds),
            sorted(self._own.items()),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    def decision(self, embedding_key: bytes) -> bytes:
        """Return 32 bytes that stand for what a photo's tags are decided from, but verdicts.

        Args:
            embedding_key: what its embedding is kept under.
        """
        return hashlib.sha256(self.digest + embedding_key).digest()

    def decide(
        self, embeddings: Float32, verdicts: Sequence[Mapping[int, VerdictName]]
    ) -> list[list[StoredTag]]:
        """Return the tags of B photos, most probable first.

        Args:
            embeddings: (B, D) float32, unit norm.
            verdicts: what the user said of labels on each.
        """
        if not len(embeddings):
            return []
        most = self._settings.max_tags
        if self._only is None and not self._never:
            # Of so many labels, what the user has rejected leaves enough.
            wanted = most + max(map(len, verdicts))
        else:
            wanted = max(_CANDIDATES, 5 * most)
        label_ids, probabilities = self.index.searcher.best_labels(embeddings, wanted)
        reached = probabilities >= self.floors_of(label_ids)
        return [
            self._tags_of(embedding, said, *_chosen(ids, values, enough))
            for embedding, said, ids, values, enough in zip(
                embeddings, verdicts, label_ids, probabilities, reached, strict=True
            )
        ]

    def floors_of(self, label_ids: Int64) -> Float64:
        """Return the probability from which on each label becomes a tag, in the shape given."""
        distinct, places = np.unique(label_ids, return_inverse=True)
        ids = distinct.tolist()
        missing = [label_id for label_id in ids if label_id not in self._floors]
        if missing:
            found = label_floors(self.index, self._thresholds, np.array(missing))
            self._floors |= dict(zip(missing, found.tolist(), strict=True))
            self._floors |= {one: self._own[one] for one in missing if one in self._own}
        return np.array([self._floors[one] for one in ids])[places].reshape(label_ids.shape)

    def path_of(self, label_id: int) -> TagPath | None:
        """Return the tag that a label becomes; None for one that keywords cannot hold."""
        if label_id not in self._paths:
            self._paths[label_id] = self._path(label_id)
        return self._paths[label_id]

    def _tags_of(
        self,
        embedding: Float32,
        said: Mapping[int, VerdictName],
        label_ids: list[int],
        probabilities: list[float],
    ) -> list[StoredTag]:
        given = (
            (label_id, probability)
            for label_id, probability in zip(label_ids, probabilities, strict=True)
            if self._may_be_given(label_id) and said.get(label_id) != "rejected"
        )
        chosen = dict(islice(given, self._settings.max_tags))
        accepted = [
            label_id
            for label_id, verdict in said.items()
            if verdict == "accepted" and label_id not in chosen
        ]
        if accepted:
            chosen |= self._probabilities_of(embedding, accepted)
        tags: dict[TagPath, StoredTag] = {}
        index_id = self.index.info.index_id
        for label_id, probability in sorted(chosen.items(), key=lambda pair: -pair[1]):
            path = self.path_of(label_id)
            if path is not None:
                tag = StoredTag(index_id, path, label_id, probability)
                tags.setdefault(_folded(path), tag)
        if self._settings.ancestors:
            for tag in list(tags.values()):
                for length in range(2, len(tag.path)):
                    above = tag.path[:length]
                    tags.setdefault(_folded(above), StoredTag(index_id, above))
        return list(tags.values())

    def _may_be_given(self, label_id: int) -> bool:
        return label_id not in self._never and (self._only is None or label_id in self._only)

    def _probabilities_of(self, embedding: Float32, label_ids: Sequence[int]) -> dict[int, float]:
        """Return the probabilities of labels of the index that are not among the best."""
        keys = self.index.label_names.keys_of(label_ids)
        here = self.index.label_names.rows_of(keys)
        present = [key for key in keys if key in here]
        if not present:
            return {}
        (found,) = self.index.score(embedding, top_k=len(present), labels=present, over_index=True)
        return {
            one.label_id: one.index_probability
            for one in found
            if one.label_id is not None and one.index_probability is not None
        }

    def _path(self, label_id: int) -> TagPath | None:
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


# The same few paths come again on every photo.
_folded = lru_cache(maxsize=1 << 16)(folded_path)


def _chosen(
    label_ids: Int64, probabilities: Float64, reached: Any
) -> tuple[list[int], list[float]]:
    return label_ids[reached].tolist(), probabilities[reached].tolist()


def _described(thresholds: Thresholds | PrecisionThresholds) -> Any:
    if isinstance(thresholds, Thresholds):
        return asdict(thresholds)
    return [thresholds.overall, thresholds.label_ids.tolist(), thresholds.thresholds.tolist()]
