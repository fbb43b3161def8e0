"""Asking an index against the stock pipeline, and against the vision tower alone."""

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
    """Time how long images take, as files, against an index that is there and a loaded model.

    The stock pipeline, the first contender, does the same for one image of them, and is counted as
    many times. The bound is what nobody can do without: decoding and preparing the images, and the
    vision tower on ready pixels.

    Args:
        labels: N.
        images: how many JPEG files of 640 x 480 pixels.
        model: a checkpoint; by default a random CLIP of the size of ViT-B/32.
        rounds: turns that count.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    names = checkpoints.two_word_labels(labels)
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        folder, said = checkpoints.given_or_random(model, room)
        paths = _photos(room, images)
        stock = pipeline("zero-shot-image-classification", model=str(folder), dtype="float32")
        processor, tower = stock.image_processor, stock.model

        def pixels_of(path: str) -> Any:
            return processor(images=[load_image(path)], return_tensors="pt")["pixel_values"]

        def embed(pixels: Any) -> None:
            with torch.inference_mode():
                tower.get_image_features(pixel_values=pixels)

        ready = torch.cat([pixels_of(path) for path in paths])
        with LabelIndex.build(
            names, model=folder, name="bench", store=room / "store.db", device="cpu"
        ) as index:
            return compare(
                f"{images} JPEG files of 640 x 480, {labels:,} labels, {said}",
                [
                    Contender(
                        f"stock pipeline ({STOCK_IMAGES} image, times {images // STOCK_IMAGES})",
                        lambda: stock(paths[:STOCK_IMAGES], candidate_labels=names),
                        share=STOCK_IMAGES / images,
                    ),
                    Contender("zsic-index", lambda: index.classify(paths)),
                    Contender(
                        "decoding, then the vision tower",
                        lambda: embed(torch.cat([pixels_of(path) for path in paths])),
                    ),
                    Contender("the vision tower alone", lambda: embed(ready)),
                ],
                rounds=rounds,
            )


def _photos(room: Path, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    paths = [str(room / f"{number}.jpg") for number in range(count)]
    for path in paths:
        small = rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths
