"""Accuracy and calibration of the exported models.

All figures come from the shipped folders and the forward pass of transformers, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoProcessor

from zsic_index import builtin
from zsic_index.builtin.train.augment import DrawingTraits, augment, clean
from zsic_index.builtin.train.captions import TEMPLATES
from zsic_index.builtin.train.concepts import Concept
from zsic_index.builtin.train.drawings import Drawings
from zsic_index.builtin.train.sets import SETS

SEED = 7
BINS = 15
WAYS = 20
THRESHOLDS = (0.05, 0.1, 0.3, 0.5)
_BATCH = 128

Figures = dict[str, Any]


@dataclass(frozen=True)
class EvaluationCase:
    """Test images of one row of the tables.

    Attributes:
        name: title of the row.
        pixels: batches of (b, 3, 64, 64) float32.
        target: (n,) int64, position of the right label of each image.
    """

    name: str
    pixels: Iterator[Tensor]
    target: Tensor


class ShippedModel:
    """A shipped model that embeds prompts and images."""

    def __init__(self, folder: Path) -> None:
        """Load a checkpoint folder with transformers."""
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._processor = AutoProcessor.from_pretrained(folder)
        self.kind: str = self._model.config.model_type
        self.scale = float(self._model.logit_scale.detach().exp())
        bias = getattr(self._model, "logit_bias", None)
        self.bias = 0.0 if bias is None else float(bias.detach())

    @torch.inference_mode()
    def texts(self, prompts: list[str], **padding: Any) -> Tensor:
        """Embed prompts: (n, 192) unit-norm float32."""
        if not padding:
            padding = {"padding": True if self.kind == "clip" else "max_length"}
        rows = []
        for at in range(0, len(prompts), 256):
            inputs = self._processor.tokenizer(
                prompts[at : at + 256], return_tensors="pt", truncation=True, **padding
            )
            rows.append(self._model.get_text_features(**inputs).pooler_output)
        return functional.normalize(torch.cat(rows), dim=-1)

    @torch.inference_mode()
    def images(self, batches: Iterator[Tensor]) -> Tensor:
        """Embed batches of (b, 3, 64, 64) pixels: (n, 192) unit-norm float32."""
        rows = [self._model.get_image_features(pixel_values=part).pooler_output for part in batches]
        return functional.normalize(torch.cat(rows), dim=-1)

    def pixels(self, files: list[Path]) -> Tensor:
        """Read image files as the pipeline does: (n, 3, 64, 64) float32."""
        opened = [Image.open(file).convert("RGB") for file in files]
        values: Tensor = self._processor.image_processor(opened, return_tensors="pt")[
            "pixel_values"
        ]
        return values


def make_cases(
    drawings: Drawings, concepts: list[Concept], model: ShippedModel
) -> list[EvaluationCase]:
    """Return the test images of each row of the accuracy table."""
    trained = torch.tensor([concept.trained for concept in concepts]).numpy()
    seen = trained[drawings.concept]
    training = drawings.training(concepts)
    own = drawings.of_sets(*(item.name for item in SETS if item.role == "train"))
    plain = [
        ("training drawings, clean", training),
        ("drawings kept out with the samples", drawings.barred),
        ("openmoji, a style never trained on", drawings.of_sets("openmoji") & seen),
        ("emojione-v1, kin to two training sets", drawings.of_sets("emojione-v1") & seen),
        ("concepts never trained on", own & ~seen),
    ]
    rows = [
        EvaluationCase(
            "training drawings, fresh augmentation",
            _augmented(drawings, concepts, training),
            torch.from_numpy(drawings.concept[training]),
        )
    ]
    for name, mask in plain:
        target = torch.from_numpy(drawings.concept[mask])
        rows.append(EvaluationCase(name, _clean(drawings, mask), target))
    order = {concept.label: index for index, concept in enumerate(concepts)}
    files = builtin.samples()
    right = builtin.sample_labels()
    target = torch.tensor([order[right[file.name]] for file in files])
    rows.append(EvaluationCase("the sample images", iter([model.pixels(files)]), target))
    return rows


def evaluate(folder: Path, drawings: Drawings, concepts: list[Concept]) -> Figures:
    """Measure one shipped model."""
    model = ShippedModel(folder)
    prompts = [TEMPLATES[0].format(concept.label) for concept in concepts]
    texts = model.texts(prompts)
    figures: Figures = {"logit_scale": model.scale, "logit_bias": model.bias, "cases": {}}
    for case in make_cases(drawings, concepts, model):
        logits = model.scale * model.images(case.pixels) @ texts.T + model.bias
        row = {"images": len(logits), **_accuracy(logits, case.target)}
        row |= _softmax_calibration(logits, case.target)
        if model.kind == "siglip":
            row |= _sigmoid_calibration(logits, case.target)
        figures["cases"][case.name] = row
    figures["padding_difference"] = _padding_difference(model, prompts)
    return figures


def _accuracy(logits: Tensor, target: Tensor) -> Figures:
    own = logits.gather(1, target[:, None])
    rank = (logits > own).sum(1)
    # The right label against some others, drawn at random for each image.
    rng = torch.Generator().manual_seed(SEED)
    others = torch.randint(logits.shape[1] - 1, (len(logits), WAYS - 1), generator=rng)
    others = others + (others >= target[:, None])
    few = (logits.gather(1, others) < own).all(1)
    return {
        "top1": float((rank == 0).float().mean()),
        "top5": float((rank < 5).float().mean()),
        "way20": float(few.float().mean()),
    }


def _softmax_calibration(logits: Tensor, target: Tensor) -> Figures:
    """Return the expected calibration error over equal bins, and the mean confidence."""
    confidence, best = logits.softmax(1).max(1)
    right = (best == target).float()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    error = 0.0
    for index in range(BINS):
        inside = bins == index
        if bool(inside.any()):
            gap = float(confidence[inside].mean() - right[inside].mean())
            error += abs(gap) * float(inside.float().mean())
    return {"ece": error, "confidence": float(confidence.mean())}


def _sigmoid_calibration(logits: Tensor, target: Tensor) -> Figures:
    """Return mean probabilities of right and wrong labels, and precision and recall."""
    probabilities = logits.sigmoid()
    right = functional.one_hot(target, logits.shape[1]).bool()
    of_right = probabilities[right]
    figures: Figures = {
        "right": float(of_right.mean()),
        "right_median": float(of_right.median()),
        "wrong": float(probabilities[~right].mean()),
        "expected_labels": float(probabilities.sum(1).mean()),
        "thresholds": {},
    }
    for threshold in THRESHOLDS:
        chosen = probabilities >= threshold
        hits = int((chosen & right).sum())
        figures["thresholds"][str(threshold)] = {
            "precision": hits / max(1, int(chosen.sum())),
            "recall": hits / len(logits),
            "labels": float(chosen.sum(1).float().mean()),
        }
    return figures


def _padding_difference(model: ShippedModel, prompts: list[str]) -> float | None:
    """Return the largest change of a CLIP's text embeddings by padding; None for a SigLIP."""
    if model.kind != "clip":
        return None
    some = prompts[::50]
    alone = torch.cat([model.texts([prompt]) for prompt in some])
    padded = model.texts(some, padding="max_length")
    return float((alone - padded).abs().max())


def _clean(drawings: Drawings, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[Tensor]:
    rows = np.flatnonzero(mask)
    for at in range(0, len(rows), _BATCH):
        yield clean(torch.from_numpy(drawings.pixels[rows[at : at + _BATCH]]))


def _augmented(
    drawings: Drawings, concepts: list[Concept], mask: np.ndarray[Any, np.dtype[np.bool_]]
) -> Iterator[Tensor]:
    rng = torch.Generator().manual_seed(SEED)
    chiral = torch.tensor([concept.chiral for concept in concepts])
    monochrome = torch.tensor([item.monochrome for item in SETS])
    rows = np.flatnonzero(mask)
    for at in range(0, len(rows), _BATCH):
        part = rows[at : at + _BATCH]
        traits = DrawingTraits(
            chiral[drawings.concept[part]], monochrome[drawings.drawing_set[part]]
        )
        yield augment(torch.from_numpy(drawings.pixels[part]), traits, 1.0, rng)
