"""Tokenizers of both models: byte-level BPE in CLIP's layout, trained on names and templates."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Literal

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor

Kind = Literal["clip", "siglip"]
VOCABULARY = 4096
LENGTH = 64
_WORDS = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")

# Start and end for CLIP (padding is the end token), padding and end for SigLIP. The end has id 1
# in both: transformers treats an `eos_token_id` of 2 as a sign of an old checkpoint and then pools
# at the largest id instead of the first end token.
SPECIAL: dict[Kind, tuple[str, str]] = {
    "clip": ("<|startoftext|>", "<|endoftext|>"),
    "siglip": ("<pad>", "</s>"),
}
END = 1
PADDING: dict[Kind, int] = {"clip": 1, "siglip": 0}


def build(kind: Kind, lines: Iterable[str]) -> Tokenizer:
    """Train the tokenizer of a model."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    steps = [normalizers.NFC(), normalizers.Lowercase()]
    if kind == "siglip":  # the original tokenizer of SigLIP drops ASCII punctuation too
        marks = "".join(f"\\{mark}" for mark in string.punctuation)
        steps.append(normalizers.Replace(Regex(f"[{marks}]"), ""))
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL[kind]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    first, end = SPECIAL[kind]
    single = f"{first} $A {end}" if kind == "clip" else f"$A {end}"
    special = [(end, END), (first, 0)] if kind == "clip" else [(end, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return tokenizer


def encode(tokenizer: Tokenizer, kind: Kind, texts: list[str], step: int = 8) -> Tensor:
    """Turn texts into token ids.

    Those of CLIP are padded to a multiple of ``step`` tokens, which keeps the number of shapes
    small; those of SigLIP to 64, because its tower attends to padding.

    Returns:
        (len(texts), length) int64.
    """
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    rows = [row if len(row) <= LENGTH else [*row[: LENGTH - 1], END] for row in rows]
    longest = max(len(row) for row in rows)
    width = LENGTH if kind == "siglip" else min(LENGTH, -(-longest // step) * step)
    padding = PADDING[kind]
    return torch.tensor([row + [padding] * (width - len(row)) for row in rows])
