"""The drop-in against the stock pipeline: the same image and labels, in the same process."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import pipeline
from transformers.utils import logging as transformers_logging

from zsic_index.bench import checkpoints
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.pipeline import CachedZeroShotImageClassificationPipeline


def run(*, labels: int = 1_000, model: str | None = None, rounds: int = 3) -> Comparison:
    """Time one call with many labels.

    The stock pipeline is the first contender. A "first call" finds an empty store, a "second call"
    is that of a new process: a new pipeline, whose weights are hashed and whose embeddings come
    from the store. Loading the model is never timed.

    Args:
        labels: how many candidate labels.
        model: a checkpoint's folder or Hub id; by default a random CLIP of the size of ViT-B/32.
        rounds: turns that count.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    names = checkpoints.two_word_labels(labels)
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    )
    with tempfile.TemporaryDirectory() as room:
        folder, said = checkpoints.given_or_random(model, Path(room))
        stock = pipeline("zero-shot-image-classification", model=str(folder), dtype="float32")
        known: Any = None

        def new(store: str) -> None:
            nonlocal known
            known = pipeline(
                "zero-shot-image-classification",
                model=stock.model,
                tokenizer=stock.tokenizer,
                image_processor=stock.image_processor,
                pipeline_class=CachedZeroShotImageClassificationPipeline,
                store=str(Path(room) / store),
            )

        def call(classifier: Any) -> None:
            classifier(image, candidate_labels=names)

        numbers = itertools.count()
        new("filled.db")
        call(known)
        return compare(
            f"one 640 x 480 image, {labels:,} labels, one template, {said}",
            [
                Contender("stock pipeline", lambda: call(stock)),
                Contender(
                    "drop-in, first call", lambda: call(known), lambda: new(f"{next(numbers)}.db")
                ),
                Contender("drop-in, second call", lambda: call(known), lambda: new("filled.db")),
                Contender("drop-in, later calls", lambda: call(known)),
            ],
            rounds=rounds,
        )
