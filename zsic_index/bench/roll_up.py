"""Rolling up to a rank, compared with the scan alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zsic_index import taxonomy
from zsic_index.bench.scan import LOGIT_SCALE, block_sizes, random_units
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.label_index import LabelIndex

RANKS = ("class", "order", "family", "genus")

_CHILDREN = (12, 9, 18)
"""Orders per class, families per order and genera per family; species fill the genera."""

_CLASSES = 10


def run(
    *, labels: int = 350_000, images: int = 10_000, dim: int = 512, rounds: int = 1
) -> Comparison:
    """Time ``score_rank`` for families against ``search`` for the best label.

    Args:
        labels: number of species, N, in an order unrelated to their families.
        images: number of image embeddings, B.
        dim: dimensions, D.
        rounds: timed rounds.
    """
    rng = np.random.default_rng(0)
    embeddings = random_units(rng, images, dim)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "species.tsv"
        path.write_text("\n".join(_table_lines(labels, rng)) + "\n", encoding="utf-8")
        species = taxonomy.read(path)
        with LabelIndex.from_embeddings(
            species,
            np.concatenate([random_units(rng, rows, dim) for rows in block_sizes(labels)]),
            logit_scale=LOGIT_SCALE,
            name="bench",
            store=Path(temporary) / "store.db",
        ) as index:
            families = len(index.structure.nodes_at("family"))
            return compare(
                f"{images:,} images, {labels:,} labels x {dim}, {families:,} families",
                [
                    Contender("the scan alone", lambda: index.searcher.search(embeddings, 5)),
                    Contender(
                        "rolled up to the family",
                        lambda: index.score_rank(embeddings, rank="family"),
                    ),
                    Contender(
                        "the deepest node at 0.5",
                        lambda: index.score_deepest(embeddings, floor=0.5),
                    ),
                ],
                rounds=rounds,
                warmup=0,
            )


def _table_lines(labels: int, rng: np.random.Generator) -> Iterator[str]:
    """Yield the lines of a table with one column per rank, in random order."""
    yield "\t".join((*RANKS, "species"))
    orders, families, genera = _CHILDREN
    for number in rng.permutation(labels).tolist():
        genus = number % (_CLASSES * orders * families * genera)
        family = genus // genera
        order = family // families
        names = (f"class {order // orders}", f"order {order}", f"family {family}", f"genus {genus}")
        yield "\t".join((*names, f"species {number}"))
