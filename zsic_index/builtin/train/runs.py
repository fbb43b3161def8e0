"""The two training runs, from drawings to a checkpoint of averaged weights."""

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
    SIGLIP_IMAGES_PER_TEXT,
    SIGLIP_TEXTS,
    ClipObjective,
    SiglipObjective,
)

SEED = 20260
CLIP_RATE = 1e-3
SIGLIP_RATE = 8e-4
SCALAR_RATE = 10.0  # at the common rate SigLIP's bias hardly leaves its start


def clip(cache: Path, pace: Pace, seed: int = SEED) -> None:
    """Train the CLIP and leave its averaged weights in ``cache/clip.pt``."""
    torch.manual_seed(seed)
    known = concepts.load(cache)
    tokenizer = tokenizer_of(cache, "clip", known)
    model = towers.new_clip(tokenizer.get_vocab_size())
    batches = Batches(drawings.load(cache), known, tokenizer, "clip", seed)
    objective = ClipObjective(model, batches, len(known))
    fit(
        model,
        [objective.anchors.vectors],
        objective,
        pace,
        batch=CLIP_BATCH,
        rate=CLIP_RATE,
        scalar_rate=1.0,
        seed=seed,
        checkpoint=cache / "clip.pt",
        after=objective.clamp,
    )


def siglip(cache: Path, pace: Pace, seed: int = SEED + 1) -> None:
    """Train the SigLIP, its vision tower from the CLIP's, and leave it in ``cache/siglip.pt``."""
    torch.manual_seed(seed)
    known = concepts.load(cache)
    tokenizer = tokenizer_of(cache, "siglip", known)
    model = towers.new_siglip(tokenizer.get_vocab_size())
    batches = Batches(drawings.load(cache), known, tokenizer, "siglip", seed)
    pixels = batches.images(batches.concepts(256), 1.0)
    towers.vision_from_clip(model, load_clip(cache, known), pixels)
    objective = SiglipObjective(model, batches, len(known))
    fit(
        model,
        [objective.anchors.vectors],
        objective,
        pace,
        batch=SIGLIP_TEXTS * SIGLIP_IMAGES_PER_TEXT,
        rate=SIGLIP_RATE,
        scalar_rate=SCALAR_RATE,
        seed=seed,
        checkpoint=cache / "siglip.pt",
        after=objective.clamp,
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
