"""The drop-in pipeline compared with the stock one, on the same image and labels."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import pipeline

from zsic_index.bench import checkpoints
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.pipeline import CachedZeroShotImageClassificationPipeline


def run(*, labels: int = 1_000, model: str | None = None, rounds: int = 3) -> Comparison:
    """Time one call with many labels.

    The stock pipeline is the first contender. A "first call" uses an empty store. A "second call"
    is the first one of a new process: a new pipeline hashes its weights and reads the embeddings
    from the store. Loading the model is never timed.

    Args:
        labels: number of candidate labels.
        model: folder or Hub id of a checkpoint; by default a random CLIP of ViT-B/32's size.
        rounds: timed rounds.
    """
    names = checkpoints.two_word_labels(labels)
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    )
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        folder, description = checkpoints.get_checkpoint(model, workspace)
        stock = pipeline("zero-shot-image-classification", model=str(folder), dtype="float32")
        drop_in: Any = None

        def make_drop_in(store: str) -> None:
            nonlocal drop_in
            drop_in = pipeline(
                "zero-shot-image-classification",
                model=stock.model,
                tokenizer=stock.tokenizer,
                image_processor=stock.image_processor,
                pipeline_class=CachedZeroShotImageClassificationPipeline,
                store=str(workspace / store),
            )

        def call(classifier: Any) -> None:
            classifier(image, candidate_labels=names)

        numbers = itertools.count()
        make_drop_in("filled.db")
        call(drop_in)
        return compare(
            f"one 640 x 480 image, {labels:,} labels, one template, {description}",
            [
                Contender("stock pipeline", lambda: call(stock)),
                Contender(
                    "drop-in, first call",
                    lambda: call(drop_in),
                    lambda: make_drop_in(f"{next(numbers)}.db"),
                ),
                Contender(
                    "drop-in, second call",
                    lambda: call(drop_in),
                    lambda: make_drop_in("filled.db"),
                ),
                Contender("drop-in, later calls", lambda: call(drop_in)),
            ],
            rounds=rounds,
        )
