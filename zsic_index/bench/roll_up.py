"""Rolling answers up to a rank against the scan alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zsic_index import taxonomy
from zsic_index.bench.scan import LOGIT_SCALE, sizes, unit
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.label_index import LabelIndex

RANKS = ("class", "order", "family", "genus")

_CHILDREN = (12, 9, 18)
"""Orders of a class, families of an order, genera of a family; species fill the rest."""

_CLASSES = 10


def run(
    *, labels: int = 350_000, images: int = 10_000, dim: int = 512, rounds: int = 1
) -> Comparison:
    """Time ``score_rank`` for families against ``search`` for the best label.

    Args:
        labels: N species, in an order that has nothing to do with their families.
        images: B.
        dim: D.
        rounds: turns that count.
    """
    rng = np.random.default_rng(0)
    embeddings = unit(rng, images, dim)
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "species.tsv"
        path.write_text("\n".join(_rows(labels, rng)) + "\n", encoding="utf-8")
        species = taxonomy.read(path)
        with LabelIndex.from_embeddings(
            species,
            np.concatenate([unit(rng, rows, dim) for rows in sizes(labels)]),
            logit_scale=LOGIT_SCALE,
            name="bench",
            store=Path(room) / "store.db",
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


def _rows(labels: int, rng: np.random.Generator) -> Iterator[str]:
    yield "\t".join((*RANKS, "species"))
    orders, families, genera = _CHILDREN
    for number in rng.permutation(labels).tolist():
        genus = number % (_CLASSES * orders * families * genera)
        family = genus // genera
        order = family // families
        names = (f"class {order // orders}", f"order {order}", f"family {family}", f"genus {genus}")
        yield "\t".join((*names, f"species {number}"))
