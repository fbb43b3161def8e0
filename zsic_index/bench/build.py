"""Building an index, compared with a loop over labels and with the text tower alone."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

from zsic_index.bench import checkpoints
from zsic_index.bench.timing import Comparison, Contender, compare
from zsic_index.encoders.two_towers import TOKENS_PER_BATCH
from zsic_index.label_index import LabelIndex
from zsic_index.prompts import DEFAULT_TEMPLATE, render

LOOPED_LABELS = 50


def run(*, labels: int = 10_000, model: str | None = None, rounds: int = 1) -> Comparison:
    """Time a build of labels that are new to the store, including loading the model.

    The first contender encodes one label at a time, padded to the model's full length, as loops
    modelled on open_clip's examples do; it encodes only LOOPED_LABELS labels. The lower bound is
    the text tower alone on tokenised prompts, sorted by length and padded to the longest of a
    batch.

    Args:
        labels: number of labels, N.
        model: checkpoint; by default a random CLIP of ViT-B/32's size.
        rounds: timed rounds.
    """
    names = checkpoints.two_word_labels(labels)
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        folder, description = checkpoints.get_checkpoint(model, workspace)
        stock = pipeline("zero-shot-image-classification", model=str(folder), dtype="float32")
        tokenizer, tower = stock.tokenizer, stock.model
        numbers = itertools.count()
        length = tower.config.text_config.max_position_embeddings

        def encode(inputs: Any) -> bool:
            with torch.inference_mode():
                return tower.get_text_features(**inputs) is not None

        def loop() -> None:
            for label in names[:LOOPED_LABELS]:
                prompt = render(label, [DEFAULT_TEMPLATE])
                encode(
                    tokenizer(prompt, padding="max_length", max_length=length, return_tensors="pt")
                )

        def build() -> None:
            LabelIndex.build(
                names,
                model=folder,
                name="bench",
                store=workspace / f"{next(numbers)}.db",
                device="cpu",
                runtime="torch",  # without an ONNX tower, which is not for labels
            ).close()

        batches = _batches(tokenizer, [render(label, [DEFAULT_TEMPLATE])[0] for label in names])
        return compare(
            f"{labels:,} labels of two words, one template, {description}",
            [
                Contender(
                    f"one label at a time, {length} tokens ({LOOPED_LABELS} labels, "
                    f"times {labels / LOOPED_LABELS:g})",
                    loop,
                    share=LOOPED_LABELS / labels,
                ),
                Contender("zsic-index build", build),
                Contender("the text tower alone", lambda: all(map(encode, batches))),
            ],
            rounds=rounds,
            warmup=0,
        )


def _batches(tokenizer: Any, prompts: list[str]) -> list[Any]:
    """Return batches of about TOKENS_PER_BATCH tokens, shortest prompts first."""
    ids = tokenizer(prompts)["input_ids"]
    counts = {prompt: len(line) for prompt, line in zip(prompts, ids, strict=True)}
    ordered = sorted(prompts, key=counts.__getitem__)
    batches: list[list[str]] = [[]]
    for prompt in ordered:
        if (len(batches[-1]) + 1) * counts[prompt] > TOKENS_PER_BATCH:
            batches.append([])
        batches[-1].append(prompt)
    return [tokenizer(batch, padding=True, return_tensors="pt") for batch in batches]
