"""Embed the images that an index is calibrated and evaluated on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import ImageError, InputError
from zsic_index.evaluation.reading import LabelledImages
from zsic_index.evaluation.record import InputCounts
from zsic_index.label_index import LabelIndex
from zsic_index.taxonomy.names import fold_name


@dataclass(frozen=True, slots=True, eq=False)
class LabelledEmbeddings:
    """Embeddings of labelled images, with their correct labels as rows of an index.

    Attributes:
        paths: files of the B images.
        embeddings: (B, D) float32, unit norm.
        truth: correct labels of the B images.
        counts: number of inputs that were used or left out, by reason.
        refused: error messages for images that cannot be read.
        unknown: label names that match no label of the index, or several.
    """

    paths: tuple[Path, ...]
    embeddings: Float32
    truth: Truth
    counts: InputCounts
    refused: tuple[str, ...]
    unknown: tuple[str, ...]

    def take(self, images: Int64) -> LabelledEmbeddings:
        """Return the images at the given positions."""
        paths = tuple(self.paths[image] for image in images.tolist())
        return replace(
            self,
            paths=paths,
            embeddings=self.embeddings[images],
            truth=self.truth.take(images),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceEmbeddings:
    """Embeddings of images without labels.

    Attributes:
        embeddings: (R, D) float32, unit norm.
        refused: error messages for images that cannot be read.
    """

    embeddings: Float32
    refused: tuple[str, ...]


def embed_labelled(index: LabelIndex, labelled: LabelledImages) -> LabelledEmbeddings:
    """Embed labelled images, and look up their labels in the index.

    A label is matched by its key or name, else by an alias, else by a translation, ignoring case,
    Unicode form and underscores. A name that several labels share matches none of them.

    Raises:
        InputError: when no image can be read and has a label of the index.
        ModelError: see ``LabelIndex.classify``.
    """
    row_of = _rows_by_name(index)
    label_rows: list[list[int]] = []
    unknown = dict[str, None]()
    for image in labelled.images:
        row_of_label = {label: row_of.get(_match_key(label)) for label in image.labels}
        unknown |= dict.fromkeys(label for label, row in row_of_label.items() if row is None)
        label_rows.append([row for row in row_of_label.values() if row is not None])
    usable = [position for position, rows in enumerate(label_rows) if rows]
    paths, embeddings, refused = [], [], []
    embedded_rows: list[list[int]] = []
    sources = [labelled.images[position].path for position in usable]
    for position, embedding in zip(usable, index.encoder.stream_embeddings(sources), strict=True):
        if isinstance(embedding, ImageError):
            refused.append(str(embedding))
            continue
        paths.append(labelled.images[position].path)
        embeddings.append(embedding)
        embedded_rows.append(label_rows[position])
    if not embeddings:
        raise InputError(
            f"none of {len(labelled.images)} images can be used: {len(refused)} are refused, and "
            f"the labels of {len(labelled.images) - len(usable)} are not in the index "
            f"(such as {next(iter(unknown), None)!r})"
        )
    pairs = [(number, row) for number, rows in enumerate(embedded_rows) for row in rows]
    images, rows = np.array(pairs, dtype=np.int64).T
    return LabelledEmbeddings(
        tuple(paths),
        np.stack(embeddings),
        Truth.of(len(paths), len(index), images, rows),
        InputCounts(
            given=labelled.entries,
            evaluated=len(paths),
            repeated=labelled.repeated,
            missing=len(labelled.missing),
            unlabelled=labelled.unlabelled,
            ignored=labelled.ignored,
            refused=len(refused),
            unknown=len(labelled.images) - len(usable),
        ),
        tuple(refused),
        tuple(unknown),
    )


def embed_references(index: LabelIndex, paths: Iterable[Path]) -> ReferenceEmbeddings:
    """Embed images without labels.

    Raises:
        InputError: when none of them can be read.
        ModelError: see ``LabelIndex.classify``.
    """
    embeddings, refused = [], []
    for embedding in index.encoder.stream_embeddings(paths):
        if isinstance(embedding, ImageError):
            refused.append(str(embedding))
        else:
            embeddings.append(embedding)
    if not embeddings:
        raise InputError(f"none of {len(refused)} images can be read, such as: {refused[:1]}")
    return ReferenceEmbeddings(np.stack(embeddings), tuple(refused))


def _rows_by_name(index: LabelIndex) -> dict[str, int | None]:
    """Return the row of every name by its match key; None for a name that several labels share."""
    structure = index.structure
    taxonomy = structure.taxonomy
    nodes = taxonomy.label_nodes[structure.row_order].tolist()
    kinds: tuple[Callable[[int], Iterable[str]], ...] = (
        lambda node: (taxonomy.keys[node], taxonomy.names[node]),
        lambda node: taxonomy.aliases.get(node, ()),
        taxonomy.translations,
    )
    row_of: dict[str, int | None] = {}
    for names_of in kinds:
        rows_of: defaultdict[str, set[int]] = defaultdict(set)
        for row, node in enumerate(nodes):
            for name in names_of(node):
                rows_of[_match_key(name)].add(row)
        # An alias or translation of one label never hides the name of another.
        for key, rows in rows_of.items():
            row_of.setdefault(key, rows.pop() if len(rows) == 1 else None)
    return row_of


def _match_key(name: str) -> str:
    """Return the form of a name by which folder and table labels are matched."""
    return " ".join(fold_name(name).replace("_", " ").replace("/", " ").split())
