"""Checkpoints for timing: given ones, or random ones of a real size with meaningless answers."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging as transformers_logging

from zsic_index import builtin, encoders
from zsic_index.encoders.checkpoint import TransformersFiles
from zsic_index.errors import ModelError

_ADJECTIVES = """
red blue green yellow white black grey brown pink purple small large tiny huge old new young
ancient modern broken shiny dusty clean dirty wet dry hot cold warm cool soft hard smooth rough
round square flat tall short long wide narrow thick thin heavy light bright dark loud quiet fast
slow empty full open closed wooden metal plastic glass paper stone golden silver happy sad angry
calm brave shy proud lazy busy tired fresh rotten ripe raw cooked frozen sweet sour salty bitter
spicy wild tame striped spotted curly straight bent folded torn painted carved woven polished
rusty mossy
"""

_NOUNS = """
cat dog horse cow sheep goat pig hen duck goose swan eagle owl crow robin wren fish shark whale
crab frog snake turtle lizard bee ant spider house barn church castle bridge tower road river
lake sea beach forest tree flower leaf rock hill mountain cloud sun moon star car bus train boat
ship plane bicycle truck chair table bed lamp clock mirror door window book pen cup plate bowl
spoon knife bottle box bag hat coat shirt shoe glove ring key coin drum guitar piano violin ball
kite apple pear plum grape lemon bread cheese cake tent rope bell
"""

_MERGES = 49_152 - 256 - 2
"""Number of lines of the vocabulary that CLIP uses."""

DEFAULT_SIZE = "B/32"

VISION_SIZES: dict[str, dict[str, Any]] = {
    DEFAULT_SIZE: {},
    "L/14": {
        "vision_config": {
            "hidden_size": 1_024,
            "intermediate_size": 4_096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        "projection_dim": 768,
    },
}
"""Configuration of a random CLIP by the size of its vision tower; CLIP's defaults are B/32's.

Text towers are of B/32's size.
"""


def write_random_clip(folder: Path, size: str = DEFAULT_SIZE) -> str:
    """Write a random CLIP of a size of VISION_SIZES and return the name of its tokenizer.

    The tokenizer is CLIP's own if open_clip is installed, whose distribution contains the
    vocabulary (it need not be importable), else that of ``builtin:clip``.
    """
    vocabulary = _clip_vocabulary()
    if vocabulary is None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(builtin.model_path("builtin:clip"))
        tokenizer_name = "the tokenizer of builtin:clip"
    else:
        tokenizer, tokenizer_name = _clip_tokenizer(vocabulary), "CLIP's tokenizer"
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder)
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        **VISION_SIZES[size],
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPImageProcessor().save_pretrained(folder)
    return tokenizer_name


def get_checkpoint(
    model: str | None, workspace: Path, size: str = DEFAULT_SIZE
) -> tuple[Path, str]:
    """Return the folder and a description of ``model``, or of a random CLIP in ``workspace``.

    Silences warnings and progress bars of transformers.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if model is not None:
        return find_folder(model), model
    folder = workspace / "model"
    return folder, f"a random CLIP of ViT-{size}'s size with {write_random_clip(folder, size)}"


def two_word_labels(count: int) -> list[str]:
    """Return distinct labels of an adjective and a noun, with a number once these run out."""
    pairs = [f"{adjective} {noun}" for adjective in _ADJECTIVES.split() for noun in _NOUNS.split()]
    return [
        pairs[n % len(pairs)] + (f" {n // len(pairs)}" if n >= len(pairs) else "")
        for n in range(count)
    ]


def find_folder(model: str) -> Path:
    """Return the folder of a checkpoint in transformers' format.

    Raises:
        ModelError: for a model that is missing or has another format.
    """
    files = encoders.resolve(model).files
    if not isinstance(files, TransformersFiles):
        raise ModelError(f"model {model}: transformers' pipeline cannot read it: name another")
    return files.adapter or files.folder


def _clip_vocabulary() -> Path | None:
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    return path if path.exists() else None


def _clip_tokenizer(vocabulary: Path) -> Any:
    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    # GPT-2's byte alphabet lists printable bytes first, then the others.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate([*tokens, *ends])}
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges)
