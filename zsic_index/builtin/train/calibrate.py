"""Calibration of the logit scale (and SigLIP's bias) after training.

A training batch has a few hundred labels and half of the patches; in use there are 1,623 labels and
whole images. One or two numbers, fitted on new augmentations of the training drawings, compensate
for the difference. The order of the labels does not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, SiglipModel

from zsic_index.builtin.train import drawings, runs, towers
from zsic_index.builtin.train.batches import Batches
from zsic_index.builtin.train.captions import TEMPLATES
from zsic_index.builtin.train.concepts import Concept
from zsic_index.builtin.train.tokens import Kind, encode

SEED = 11
ROUNDS = 24
STRENGTH = 1.0


def calibrate(
    cache: Path, kind: Kind, model: CLIPModel | SiglipModel, concepts: list[Concept]
) -> dict[str, float]:
    """Set the model's logit scale and bias; return their values before and after."""
    tokenizer = runs.load_tokenizer(cache, kind, concepts)
    batches = Batches(drawings.load(cache), concepts, tokenizer, kind, SEED)
    prompts = [TEMPLATES[0].format(concept.label) for concept in concepts]
    similarity, target = similarities(model, batches, encode(tokenizer, kind, prompts))
    scale = float(model.logit_scale.detach())
    figures = {"scale_before": math.exp(scale)}
    with torch.no_grad():
        if isinstance(model, SiglipModel):
            bias = float(model.logit_bias.detach())
            figures["bias_before"] = bias
            scale, bias = fit_sigmoid(similarity, target, (scale, bias))
            model.logit_bias.fill_(bias)
            figures["bias"] = bias
        else:
            scale = fit_softmax(similarity, target, scale)
        model.logit_scale.fill_(scale)
    return figures | {"scale": math.exp(scale)}


@torch.no_grad()
def similarities(
    model: CLIPModel | SiglipModel, batches: Batches, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the similarities of new images to all labels, (n, m), and the right labels, (n,)."""
    texts = torch.cat(
        [towers.text_embeddings(model, labels[at : at + 256]) for at in range(0, len(labels), 256)]
    )
    rows, targets = [], []
    for _ in range(ROUNDS):
        chosen = batches.concepts(256)
        images = towers.image_embeddings(model, batches.images(chosen, STRENGTH))
        rows.append(images @ texts.T)
        targets.append(torch.tensor(chosen))
    return torch.cat(rows), torch.cat(targets)


def fit_softmax(similarity: Tensor, target: Tensor, start: float) -> float:
    """Return the log of the scale with the least cross-entropy, at most log 100."""
    scale = torch.tensor(start, requires_grad=True)
    _minimise([scale], lambda: functional.cross_entropy(similarity * scale.exp(), target))
    return min(float(scale.detach()), math.log(100))


def fit_sigmoid(
    similarity: Tensor, target: Tensor, start: tuple[float, float]
) -> tuple[float, float]:
    """Return the log of the scale and the bias with the least binary cross-entropy."""
    scale = torch.tensor(start[0], requires_grad=True)
    bias = torch.tensor(start[1], requires_grad=True)
    right = functional.one_hot(target, similarity.shape[1]).float()

    def loss() -> Tensor:
        logits = similarity * scale.exp() + bias
        return functional.binary_cross_entropy_with_logits(logits, right, reduction="sum") / len(
            target
        )

    _minimise([scale, bias], loss)
    return min(float(scale.detach()), math.log(100)), float(bias.detach())


def _minimise(variables: list[Tensor], loss: Callable[[], Tensor]) -> None:
    optimiser = torch.optim.LBFGS(variables, max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]
