"""Classifying image files, compared with the stock pipeline and the vision tower alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import pipeline
from transformers.image_utils import load_image
from transformers.utils import logging as transformers_logging

from zsic_index.bench import checkpoints
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.label_index import LabelIndex

STOCK_IMAGES = 1


def run(
    *, labels: int = 1_000, images: int = 32, model: str | None = None, rounds: int = 3
) -> Comparison:
    """Time the classification of image files with an existing index and a loaded model.

    The stock pipeline, the first contender, classifies STOCK_IMAGES of the images; its times are
    scaled to all of them. The lower bounds are decoding and preprocessing with the vision tower,
    and the vision tower alone on ready pixels.

    Args:
        labels: number of labels, N.
        images: number of JPEG files of 640 x 480 pixels, B.
        model: checkpoint; by default a random CLIP of ViT-B/32's size.
        rounds: timed rounds.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    names = checkpoints.two_word_labels(labels)
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        folder, description = checkpoints.get_checkpoint(model, workspace)
        paths = _write_photos(workspace, images)
        stock = pipeline("zero-shot-image-classification", model=str(folder), dtype="float32")
        processor, tower = stock.image_processor, stock.model

        def preprocess(path: str) -> Any:
            return processor(images=[load_image(path)], return_tensors="pt")["pixel_values"]

        def embed(pixels: Any) -> None:
            with torch.inference_mode():
                tower.get_image_features(pixel_values=pixels)

        pixels = torch.cat([preprocess(path) for path in paths])
        with LabelIndex.build(
            names, model=folder, name="bench", store=workspace / "store.db", device="cpu"
        ) as index:
            return compare(
                f"{images} JPEG files of 640 x 480, {labels:,} labels, {description}",
                [
                    Contender(
                        f"stock pipeline ({STOCK_IMAGES} image, times {images // STOCK_IMAGES})",
                        lambda: stock(paths[:STOCK_IMAGES], candidate_labels=names),
                        share=STOCK_IMAGES / images,
                    ),
                    Contender("zsic-index", lambda: index.classify(paths)),
                    Contender(
                        "decoding, then the vision tower",
                        lambda: embed(torch.cat([preprocess(path) for path in paths])),
                    ),
                    Contender("the vision tower alone", lambda: embed(pixels)),
                ],
                rounds=rounds,
            )


def _write_photos(folder: Path, count: int) -> list[str]:
    """Write random JPEG files and return their paths."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{number}.jpg") for number in range(count)]
    for path in paths:
        small = rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths
