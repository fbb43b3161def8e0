"""The first answer of a new process from a small and a large index, and a second import."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.label_index import LabelIndex

SMALL = 10

_FIRST_ANSWER = """
import sys, numpy as np
from zsic_index import LabelIndex
with LabelIndex.open(sys.argv[1], store=sys.argv[2]) as index:
    index.score(np.ones(index.info.dim, np.float32), top_k=10)
"""


def run(*, labels: int = 100_000, dim: int = 512, rounds: int = 3) -> Comparison:
    """Time new processes that open an index and score one image embedding.

    Args:
        labels: number of labels of the large index, N.
        dim: dimensions, D.
        rounds: timed rounds.
    """
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((labels, dim), dtype=np.float32)
    names = [f"label {number}" for number in range(labels)]
    with tempfile.TemporaryDirectory() as temporary:
        store = str(Path(temporary) / "store.db")

        def import_labels(count: int) -> None:
            LabelIndex.from_embeddings(
                names[:count],
                embeddings[:count],
                logit_scale=100.0,
                name=f"of-{count}",
                store=store,
            ).close()

        def answer(count: int) -> None:
            arguments = [sys.executable, "-c", _FIRST_ANSWER, f"of-{count}", store]
            subprocess.run(arguments, check=True)

        import_labels(SMALL)
        import_labels(labels)
        return compare(
            f"{labels:,} labels x {dim}: first answer of a new process, without a model",
            [
                Contender(f"of {SMALL} labels", lambda: answer(SMALL)),
                Contender(f"of {labels:,} labels", lambda: answer(labels)),
                Contender("importing the same again", lambda: import_labels(labels)),
            ],
            rounds=rounds,
        )
