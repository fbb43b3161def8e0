"""Losses: those of CLIP and SigLIP, an auxiliary one at the start, and one over all labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, SiglipModel

from zsic_index.builtin.train import towers
from zsic_index.builtin.train.batches import Batches

CLIP_BATCH = 256
SIGLIP_TEXTS = 192
SIGLIP_IMAGES_PER_TEXT = 2
BANK_EVERY = 40
_AUXILIARY_SCALE = 20.0


@dataclass(frozen=True)
class Schedule:
    """Schedule of the parts of a run; points in time are shares of the run.

    Attributes:
        augmentation_full_at: point at which the augmentation reaches its full strength.
        auxiliary_gone_at: point at which the auxiliary loss has faded out.
        bank_from: point from which the loss over the caption bank counts.
        bank_weight: weight of that loss.
        half_patches_until: point until which the vision tower gets half of the patches.
    """

    augmentation_full_at: float
    auxiliary_gone_at: float
    bank_from: float
    bank_weight: float
    half_patches_until: float

    def strength(self, progress: float) -> float:
        """Return the strength of the augmentation at a point of the run."""
        if progress >= self.augmentation_full_at:
            return 1.0
        return 0.2 + 0.8 * progress / self.augmentation_full_at

    def pull(self, progress: float) -> float:
        """Return the weight of the auxiliary loss at a point of the run."""
        if progress >= self.auxiliary_gone_at:
            return 0.0
        return 1 - progress / self.auxiliary_gone_at

    def bank(self, progress: float) -> float:
        """Return the weight of the loss over the caption bank at a point of the run."""
        return self.bank_weight if progress >= self.bank_from else 0.0


# A run from random weights, and one that continues from trained weights.
FRESH = Schedule(0.5, 0.7, 0.25, 0.5, 0.75)
FURTHER = Schedule(0.0, 0.0, 0.0, 1.0, 0.65)


class Anchors:
    """One trainable vector per trained concept, a common target of its images and captions.

    It gives both towers the same target before their embeddings agree; its loss is faded out.
    """

    def __init__(self, seen: Tensor, total: int, rng: torch.Generator) -> None:
        """Make anchors for the concepts ``seen`` (m,) out of ``total``."""
        self.vectors = torch.randn(len(seen), towers.WIDTH, generator=rng).requires_grad_()
        self._row = torch.full((total,), -1)
        self._row[seen] = torch.arange(len(seen))

    def loss(self, embeddings: Tensor, concepts: Tensor) -> Tensor:
        """Return the cross-entropy of embeddings (b, 192) against all anchors."""
        logits = _AUXILIARY_SCALE * embeddings @ functional.normalize(self.vectors, dim=-1).T
        return functional.cross_entropy(logits, self._row[concepts])


class CaptionBank:
    """Caption embeddings of all trained concepts, without gradient, at most some steps old.

    A batch has only some of the labels; with the bank, images are trained against all of them, as
    the models are used.
    """

    def __init__(self, batches: Batches, total: int) -> None:
        """Prepare the bank for the concepts of ``batches``."""
        self._batches = batches
        self._row = torch.full((total,), -1)
        self._row[batches.seen] = torch.arange(len(batches.seen))
        self._vectors: Tensor | None = None
        self._age = 0

    @torch.no_grad()
    def vectors(self, model: CLIPModel | SiglipModel) -> Tensor:
        """Return (m, 192) unit-norm float32, at most ``BANK_EVERY`` steps old."""
        if self._vectors is None or self._age >= BANK_EVERY:
            seen: list[int] = self._batches.seen.tolist()
            with torch.autocast("cpu", torch.bfloat16):
                parts = [
                    towers.text_embeddings(model, self._batches.captions(seen[at : at + 256]))
                    for at in range(0, len(seen), 256)
                ]
            self._vectors, self._age = torch.cat(parts), 0
        self._age += 1
        return self._vectors

    def rows(self, concepts: Tensor) -> Tensor:
        """Return the rows of concepts (b,) in the bank."""
        return self._row[concepts]


Towers = Callable[..., Tensor]


class ClipObjective:
    """CLIP's symmetric cross-entropy over a batch of distinct concepts."""

    def __init__(
        self,
        model: CLIPModel,
        batches: Batches,
        total: int,
        schedule: Schedule,
    ) -> None:
        """Bind the objective to a model and its data."""
        self._model, self._batches, self._schedule = model, batches, schedule
        self.anchors = Anchors(batches.seen, total, batches.rng)
        self._bank = CaptionBank(batches, total)

    def __call__(self, progress: float) -> Tensor:
        """Return the loss of a fresh batch."""
        model, batches, schedule = self._model, self._batches, self._schedule
        concepts = batches.concepts(CLIP_BATCH)
        pixels = batches.images(concepts, schedule.strength(progress))
        index = torch.tensor(concepts)
        with torch.autocast("cpu", torch.bfloat16):
            keep = _kept_patches(len(pixels), progress, schedule, batches)
            images = towers.image_embeddings(model, pixels, keep)
            texts = towers.text_embeddings(model, batches.captions(concepts))
        scale = model.logit_scale.exp()
        logits = scale * images @ texts.T
        target = torch.arange(len(concepts))
        loss = (
            functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
        ) / 2
        weight = schedule.pull(progress)
        if weight:
            pull = self.anchors.loss(images, index) + 0.5 * self.anchors.loss(texts, index)
            loss = loss + weight * pull
        weight = schedule.bank(progress)
        if weight:
            everything = scale * images @ self._bank.vectors(model).T
            loss = loss + weight * functional.cross_entropy(everything, self._bank.rows(index))
        return loss

    def clamp(self) -> None:
        """Limit the logit scale to 100."""
        with torch.no_grad():
            self._model.logit_scale.clamp_(max=math.log(100))


class SiglipObjective:
    """SigLIP's sigmoid loss, two images to a caption."""

    def __init__(
        self,
        model: SiglipModel,
        batches: Batches,
        total: int,
        schedule: Schedule,
    ) -> None:
        """Bind the objective to a model and its data."""
        self._model, self._batches, self._schedule = model, batches, schedule
        self.anchors = Anchors(batches.seen, total, batches.rng)
        self._bank = CaptionBank(batches, total)

    def __call__(self, progress: float) -> Tensor:
        """Return the loss of a fresh batch."""
        model, batches, schedule = self._model, self._batches, self._schedule
        concepts = batches.concepts(SIGLIP_TEXTS)
        of_images = concepts * SIGLIP_IMAGES_PER_TEXT
        pixels = batches.images(of_images, schedule.strength(progress))
        index = torch.tensor(of_images)
        with torch.autocast("cpu", torch.bfloat16):
            keep = _kept_patches(len(pixels), progress, schedule, batches)
            images = towers.image_embeddings(model, pixels, keep)
            texts = towers.text_embeddings(model, batches.captions(concepts))
        scale, bias = model.logit_scale.exp(), model.logit_bias
        target = torch.arange(len(concepts)).repeat(SIGLIP_IMAGES_PER_TEXT)
        loss = _sigmoid_loss(scale * images @ texts.T + bias, target)
        weight = schedule.pull(progress)
        if weight:
            pull = self.anchors.loss(images, index)
            pull = pull + 0.5 * self.anchors.loss(texts, index[: len(texts)])
            loss = loss + weight * pull
        weight = schedule.bank(progress)
        if weight:
            everything = scale * images @ self._bank.vectors(model).T + bias
            loss = loss + weight * _sigmoid_loss(everything, self._bank.rows(index))
        return loss

    def clamp(self) -> None:
        """Limit the logit scale to 100."""
        with torch.no_grad():
            self._model.logit_scale.clamp_(max=math.log(100))


def _kept_patches(
    count: int, progress: float, schedule: Schedule, batches: Batches
) -> Tensor | None:
    if progress >= schedule.half_patches_until:
        return None
    return towers.random_half(count, batches.rng)


def _sigmoid_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the negative log-likelihood of all pairs, summed per image, averaged over images."""
    right = functional.one_hot(target, logits.shape[1]).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, right, reduction="sum") / len(logits)
