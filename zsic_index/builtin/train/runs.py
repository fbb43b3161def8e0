"""The training runs, from drawings to a checkpoint of averaged weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPModel, SiglipModel

from zsic_index.builtin.train import captions, concepts, drawings, tokens, towers
from zsic_index.builtin.train.batches import Batches
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
SCALAR_RATE = 10.0  # at the common rate SigLIP's bias hardly leaves its start


def clip(cache: Path, pace: Pace, seed: int = SEED, *, further: bool = False) -> None:
    """Train the CLIP and leave its averaged weights in ``cache/clip.pt``.

    ``further`` goes on from the weights that are there, with another seed.
    """
    seed += 1000 * further
    torch.manual_seed(seed)
    known = concepts.load(cache)
    tokenizer = tokenizer_of(cache, "clip", known)
    if further:
        model = load_clip(cache, known).train()
    else:
        model = towers.new_clip(tokenizer.get_vocab_size())
    batches = Batches(drawings.load(cache), known, tokenizer, "clip", seed)
    objective = ClipObjective(model, batches, len(known), FURTHER if further else FRESH)
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


def siglip(cache: Path, pace: Pace, seed: int = SEED + 1, *, further: bool = False) -> None:
    """Train the SigLIP, its vision tower from the CLIP's, and leave it in ``cache/siglip.pt``.

    ``further`` goes on from the weights that are there, with another seed.
    """
    seed += 1000 * further
    torch.manual_seed(seed)
    known = concepts.load(cache)
    tokenizer = tokenizer_of(cache, "siglip", known)
    batches = Batches(drawings.load(cache), known, tokenizer, "siglip", seed)
    if further:
        model = load_siglip(cache, known).train()
    else:
        model = towers.new_siglip(tokenizer.get_vocab_size())
        pixels = batches.images(batches.concepts(256), 1.0)
        towers.vision_from_clip(model, load_clip(cache, known), pixels)
    objective = SiglipObjective(model, batches, len(known), FURTHER if further else FRESH)
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


def tokenizer_of(cache: Path, kind: tokens.Kind, known: list[concepts.Concept]) -> Tokenizer:
    """Return the tokenizer of one model, training it when the cache has none.

    It is kept because its trainer numbers tokens in an order that differs from process to process:
    trained twice, it would not fit the weights.
    """
    path = cache / f"{kind}-tokenizer.json"
    if not path.exists():
        tokens.build(kind, captions.corpus(known)).save(str(path))
    return Tokenizer.from_file(str(path))


def load_clip(cache: Path, known: list[concepts.Concept]) -> CLIPModel:
    """Return the CLIP of the last checkpoint."""
    model = towers.new_clip(tokenizer_of(cache, "clip", known).get_vocab_size())
    model.load_state_dict(_weights(cache / "clip.pt"))
    return model.eval()


def load_siglip(cache: Path, known: list[concepts.Concept]) -> SiglipModel:
    """Return the SigLIP of the last checkpoint."""
    model = towers.new_siglip(tokenizer_of(cache, "siglip", known).get_vocab_size())
    model.load_state_dict(_weights(cache / "siglip.pt"))
    return model.eval()


def _weights(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights
