"""Contents of an open index: labels, embeddings, taxonomy, search and model."""

from __future__ import annotations

from functools import cached_property

from zsic_index import taxonomy
from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import LabelError
from zsic_index.label_index.encoder import IndexEncoder
from zsic_index.label_index.naming import LabelNames
from zsic_index.label_index.searcher import Searcher
from zsic_index.records import IndexInfo
from zsic_index.store import Store
from zsic_index.taxonomy import packing
from zsic_index.taxonomy.structure import Structure


class IndexContents:
    """Contents of an open index, on which subsets and scorers work."""

    def __init__(
        self, store: Store, searcher: Searcher, label_names: LabelNames, encoder: IndexEncoder
    ) -> None:
        self._store = store
        self._searcher = searcher
        self._label_names = label_names
        self._encoder = encoder

    @property
    def info(self) -> IndexInfo:
        """The index as the store describes it."""
        return self._searcher.info

    @property
    def store(self) -> Store:
        """The store that this index was opened from."""
        return self._store

    @property
    def embeddings(self) -> Float32:
        """(R, D) float32 unit-norm label embeddings in row order, memory-mapped and read-only.

        R is N, or with name pooling the number of all names of all labels.
        """
        return self._searcher.files.matrix

    @property
    def label_ids(self) -> Int64:
        """(N,) int64 label ids in row order."""
        return self._searcher.files.label_ids

    @property
    def labels(self) -> list[str]:
        """Names of the N labels in row order."""
        return self._label_names.names_of(self.label_ids.tolist())

    @cached_property
    def structure(self) -> Structure:
        """The taxonomy and its structure; rows have its labels in the order ``row_order``.

        Raises:
            StoreError: when the index was built again or removed before the first access.
        """
        digest = self.info.taxonomy
        if digest is None:
            return Structure(taxonomy.collect(self.labels))
        return Structure(packing.unpack(self._store.indexes.read_taxonomy(digest)))

    @property
    def label_names(self) -> LabelNames:
        """Look-ups between label ids, names, keys and rows."""
        return self._label_names

    @property
    def searcher(self) -> Searcher:
        """Search on arrays: rows, similarities, logits and log-partition."""
        return self._searcher

    @property
    def encoder(self) -> IndexEncoder:
        """The model that embeds images and labels for this index, lazily loaded."""
        return self._encoder

    def labels_under(self, node: str) -> list[str]:
        """Return the keys of the labels below a node, itself included, as ``labels`` takes them.

        Args:
            node: a key, or a name that only one node has.

        Raises:
            LabelError: when there is no such node, or it has no labels.
        """
        structure = self.structure
        label_keys = structure.taxonomy.label_keys
        keys = [label_keys[at] for at in structure.descendants(structure.find(node)).tolist()]
        if not keys:
            raise LabelError(f"{node!r} has no labels below it in index {self.info.name!r}")
        return keys

    def __len__(self) -> int:
        return len(self.label_ids)
