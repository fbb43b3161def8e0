"""Images with their embeddings, and their right labels where those are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import ImageError, InputError
from zsic_index.evaluation import Labelled
from zsic_index.evaluation.record import (
    Counts,
)
from zsic_index.label_index import LabelIndex
from zsic_index.taxonomy.names import fold_name


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Labelled images with their embeddings.

    Attributes:
        paths: of the B images.
        embeddings: (B, D) float32 unit-norm.
        truth: their right labels, by row of the index.
        counts: what became of everything that was given.
        refused: why, for images that cannot be read.
        unknown: labels that are not in the index.
    """

    paths: tuple[Path, ...]
    embeddings: Float32
    truth: Truth
    counts: Counts
    refused: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def first(self) -> Int64:
        """(B,) the row of each image's right label; of several the first."""
        starts = np.searchsorted(self.truth.image, np.arange(self.truth.images))
        return self.truth.label[starts]

    def part(self, chosen: Int64) -> Known:
        """Return some of the images, by place."""
        rank = np.full(self.truth.images, -1)
        rank[chosen] = np.arange(len(chosen))
        inside = rank[self.truth.image] >= 0
        truth = Truth.of(
            len(chosen),
            self.truth.labels,
            rank[self.truth.image[inside]],
            self.truth.label[inside],
        )
        paths = tuple(self.paths[at] for at in chosen.tolist())
        return replace(self, paths=paths, embeddings=self.embeddings[chosen], truth=truth)


def embed(index: LabelIndex, labelled: Labelled) -> Known:
    """Embed labelled images, and find the rows of their labels.

    A label is found by what it is known by or its name, else by an alias, else by a name in another
    language; without regard to case, Unicode form and underscores. A name that several labels have
    is none.

    Raises:
        InputError: when nothing is left.
        ModelError: see ``LabelIndex.classify``.
    """
    row_of = _row_of_names(index)
    wanted, unknown = [], dict[str, None]()
    for image in labelled.images:
        rows = {name: row_of.get(_folded(name)) for name in image.labels}
        unknown |= dict.fromkeys(name for name, row in rows.items() if row is None)
        wanted.append([row for row in rows.values() if row is not None])
    known = [at for at, rows in enumerate(wanted) if rows]
    paths, embeddings, refused = [], [], []
    image_rows: list[list[int]] = []
    sources = [labelled.images[at].path for at in known]
    for at, found in zip(known, index.encoder.stream_embeddings(sources), strict=True):
        if isinstance(found, ImageError):
            refused.append(str(found))
            continue
        paths.append(labelled.images[at].path)
        embeddings.append(found)
        image_rows.append(wanted[at])
    if not embeddings:
        raise InputError(
            f"none of {len(labelled.images)} images can be used: {len(refused)} are refused, and "
            f"the labels of {len(labelled.images) - len(known)} are not in the index "
            f"(such as {next(iter(unknown), None)!r})"
        )
    pairs = [(image, row) for image, rows in enumerate(image_rows) for row in rows]
    image, row = np.array(pairs, dtype=np.int64).T
    return Known(
        tuple(paths),
        np.stack(embeddings),
        Truth.of(len(paths), len(index), image, row),
        Counts(
            given=labelled.entries,
            evaluated=len(paths),
            repeated=labelled.repeated,
            missing=len(labelled.missing),
            unlabelled=labelled.unlabelled,
            ignored=labelled.ignored,
            refused=len(refused),
            unknown=len(labelled.images) - len(known),
        ),
        tuple(refused),
        tuple(unknown),
    )


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Images without labels.

    Attributes:
        embeddings: (R, D) float32 unit-norm.
        refused: why, for images that cannot be read.
    """

    embeddings: Float32
    refused: tuple[str, ...]


def embed_references(index: LabelIndex, paths: Iterable[Path]) -> References:
    """Embed images without labels.

    Raises:
        InputError: when none of them can be read.
        ModelError: see ``LabelIndex.classify``.
    """
    embeddings, refused = [], []
    for found in index.encoder.stream_embeddings(paths):
        if isinstance(found, ImageError):
            refused.append(str(found))
        else:
            embeddings.append(found)
    if not embeddings:
        raise InputError(f"none of {len(refused)} images can be read, such as: {refused[:1]}")
    return References(np.stack(embeddings), tuple(refused))


def _row_of_names(index: LabelIndex) -> dict[str, int | None]:
    """Return the row of every name, folded; None for a name that several labels have."""
    structure = index.structure
    taxonomy = structure.taxonomy
    nodes = taxonomy.label_nodes[structure.row_order].tolist()
    kinds: tuple[Callable[[int], Iterable[str]], ...] = (
        lambda node: (taxonomy.keys[node], taxonomy.names[node]),
        lambda node: taxonomy.aliases.get(node, ()),
        taxonomy.translations,
    )
    found: dict[str, int | None] = {}
    for names_of in kinds:
        of_kind: defaultdict[str, set[int]] = defaultdict(set)
        for row, node in enumerate(nodes):
            for name in names_of(node):
                of_kind[_folded(name)].add(row)
        # A label's own name is not taken from it by what others are called elsewhere.
        for name, rows in of_kind.items():
            found.setdefault(name, rows.pop() if len(rows) == 1 else None)
    return found


def _folded(name: str) -> str:
    """Return a name as a folder or a table may have it."""
    return " ".join(fold_name(name).replace("_", " ").replace("/", " ").split())
