"""Classifying image files, compared with the stock pipeline and the vision tower alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline
from transformers.image_utils import load_image

from zsic_index.bench import checkpoints
from zsic_index.bench.indexes import build_index
from zsic_index.bench.photos import write_photos
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.records import Runtime

STOCK_IMAGES = 1


def run(
    *,
    labels: int = 1_000,
    images: int = 32,
    model: str | None = None,
    runtime: Runtime | None = None,
    rounds: int = 3,
) -> Comparison:
    """Time the classification of image files with an existing index and a loaded model.

    The stock pipeline, the first contender, classifies STOCK_IMAGES of the images; its times are
    scaled to all of them. The lower bounds are decoding and preprocessing with the vision tower,
    and the vision tower alone on ready pixels; torch runs both, whatever the runtime.

    Args:
        labels: number of labels, N.
        images: number of JPEG files of 640 x 480 pixels, B.
        model: checkpoint; by default a random CLIP of ViT-B/32's size.
        runtime: runtime of the vision tower of zsic-index; see ``LabelIndex.build``.
        rounds: timed rounds.
    """
    names = checkpoints.two_word_labels(labels)
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        folder, description = checkpoints.get_checkpoint(model, workspace)
        paths = [str(path) for path in write_photos(workspace / "photos", images)]
        stock = pipeline("zero-shot-image-classification", model=str(folder), dtype="float32")
        processor, tower = stock.image_processor, stock.model

        def preprocess(path: str) -> Any:
            return processor(images=[load_image(path)], return_tensors="pt")["pixel_values"]

        def embed(pixels: Any) -> None:
            with torch.inference_mode():
                tower.get_image_features(pixel_values=pixels)

        pixels = torch.cat([preprocess(path) for path in paths])
        with build_index(
            names, model=folder, store=workspace / "store.db", runtime=runtime
        ) as index:
            return compare(
                f"{images} JPEG files of 640 x 480, {labels:,} labels, {description}",
                [
                    Contender(
                        f"stock pipeline ({STOCK_IMAGES} image, times {images // STOCK_IMAGES})",
                        lambda: stock(paths[:STOCK_IMAGES], candidate_labels=names),
                        share=STOCK_IMAGES / images,
                    ),
                    Contender(
                        f"zsic-index with {index.encoder.runtime}", lambda: index.classify(paths)
                    ),
                    Contender(
                        "decoding, then torch's vision tower",
                        lambda: embed(torch.cat([preprocess(path) for path in paths])),
                    ),
                    Contender("torch's vision tower alone", lambda: embed(pixels)),
                ],
                rounds=rounds,
            )
