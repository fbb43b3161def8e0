"""Probabilities of the stock pipeline and of an encoder, for the same labels and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import pipeline

from tests.support.pictures import picture
from zsic_index import encoders
from zsic_index.encoders import Encoder
from zsic_index.records import Dtype

LABELS = ["cat", "Dog", "a red house!", "blue sea", "one train", "zebra 12"]

PROMPTS = [f"This is a photo of {label}." for label in LABELS]

PICTURES = [picture(seed, (70, 50)) for seed in range(3)]

TASK = "zero-shot-image-classification"

Probabilities = NDArray[np.float64]


def stock(folder: Path, dtype: Dtype = "float32", **options: Any) -> Any:
    """Return transformers' pipeline on a checkpoint."""
    return pipeline(TASK, model=str(folder), dtype=getattr(torch, dtype), device="cpu", **options)


def stock_probabilities(reference: Any) -> Probabilities:
    """Return (B, N) probabilities of the stock pipeline for PICTURES, in the order of LABELS."""
    rows = []
    for image in PICTURES:
        scores = {
            entry["label"]: entry["score"] for entry in reference(image, candidate_labels=LABELS)
        }
        rows.append([scores[label] for label in LABELS])
    return np.array(rows)


def load(folder: Path, dtype: Dtype = "float32") -> Encoder:
    return encoders.load(encoders.resolve(folder, dtype=dtype), device="cpu")


def probabilities(encoder: Encoder) -> Probabilities:
    """Return (B, N) probabilities from embeddings, by the definition of the family."""
    images = encoder.encode_images([encoder.preprocess(image) for image in PICTURES]).embeddings
    prompts = encoder.encode_prompts(PROMPTS).embeddings
    logits = torch.tensor(images.astype(np.float64) @ prompts.T.astype(np.float64))
    logits = logits * encoder.info.logit_scale + encoder.info.logit_bias
    is_sigmoid = encoder.info.activation == "sigmoid"
    values: Probabilities = (logits.sigmoid() if is_sigmoid else logits.softmax(-1)).numpy()
    return values
