"""Training runs, from drawings to a checkpoint of averaged weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPModel, SiglipModel

from zsic_index.builtin.train import captions, drawings, tokens, towers
from zsic_index.builtin.train.batches import Batches
from zsic_index.builtin.train.concepts import Concept
from zsic_index.builtin.train.concepts import load as load_concepts
from zsic_index.builtin.train.fit import Pace, fit
from zsic_index.builtin.train.objectives import (
    CLIP_BATCH,
    FRESH,
    FURTHER,
    SIGLIP_IMAGES_PER_TEXT,
    SIGLIP_TEXTS,
    ClipObjective,
    SiglipObjective,
)

SEED = 20260
CLIP_RATE = 1e-3
SIGLIP_RATE = 8e-4
FURTHER_RATE = 0.7
SCALAR_RATE = 10.0  # at the rate of the other weights SigLIP's bias hardly moves


def train_clip(cache: Path, pace: Pace, seed: int = SEED, *, further: bool = False) -> None:
    """Train the CLIP and write its averaged weights to ``cache/clip.pt``.

    ``further`` continues from the weights there, with another seed.
    """
    seed += 1000 * further
    torch.manual_seed(seed)
    concepts = load_concepts(cache)
    tokenizer = load_tokenizer(cache, "clip", concepts)
    if further:
        model = load_clip(cache, concepts).train()
    else:
        model = towers.new_clip(tokenizer.get_vocab_size())
    batches = Batches(drawings.load(cache), concepts, tokenizer, "clip", seed)
    objective = ClipObjective(model, batches, len(concepts), FURTHER if further else FRESH)
    fit(
        model,
        [objective.anchors.vectors],
        objective,
        pace,
        batch=CLIP_BATCH,
        rate=CLIP_RATE * (FURTHER_RATE if further else 1.0),
        scalar_rate=1.0,
        seed=seed,
        checkpoint=cache / "clip.pt",
        after=objective.clamp,
        further=further,
    )


def train_siglip(cache: Path, pace: Pace, seed: int = SEED + 1, *, further: bool = False) -> None:
    """Train the SigLIP from the CLIP's vision tower; write its weights to ``cache/siglip.pt``.

    ``further`` continues from the weights there, with another seed.
    """
    seed += 1000 * further
    torch.manual_seed(seed)
    concepts = load_concepts(cache)
    tokenizer = load_tokenizer(cache, "siglip", concepts)
    batches = Batches(drawings.load(cache), concepts, tokenizer, "siglip", seed)
    if further:
        model = load_siglip(cache, concepts).train()
    else:
        model = towers.new_siglip(tokenizer.get_vocab_size())
        pixels = batches.images(batches.concepts(256), 1.0)
        towers.vision_from_clip(model, load_clip(cache, concepts), pixels)
    objective = SiglipObjective(model, batches, len(concepts), FURTHER if further else FRESH)
    fit(
        model,
        [objective.anchors.vectors],
        objective,
        pace,
        batch=SIGLIP_TEXTS * SIGLIP_IMAGES_PER_TEXT,
        rate=SIGLIP_RATE * (FURTHER_RATE if further else 1.0),
        scalar_rate=SCALAR_RATE,
        seed=seed,
        checkpoint=cache / "siglip.pt",
        after=objective.clamp,
        further=further,
    )


def load_tokenizer(cache: Path, kind: tokens.Kind, concepts: list[Concept]) -> Tokenizer:
    """Return the tokenizer of a model; train it if the cache has none.

    It is cached because the trainer's order of tokens differs from process to process: a tokenizer
    that was trained again would not fit the weights.
    """
    path = cache / f"{kind}-tokenizer.json"
    if not path.exists():
        tokens.build(kind, captions.build_corpus(concepts)).save(str(path))
    return Tokenizer.from_file(str(path))


def load_clip(cache: Path, concepts: list[Concept]) -> CLIPModel:
    """Return the CLIP of the last checkpoint."""
    model = towers.new_clip(load_tokenizer(cache, "clip", concepts).get_vocab_size())
    model.load_state_dict(_weights(cache / "clip.pt"))
    return model.eval()


def load_siglip(cache: Path, concepts: list[Concept]) -> SiglipModel:
    """Return the SigLIP of the last checkpoint."""
    model = towers.new_siglip(load_tokenizer(cache, "siglip", concepts).get_vocab_size())
    model.load_state_dict(_weights(cache / "siglip.pt"))
    return model.eval()


def _weights(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights
