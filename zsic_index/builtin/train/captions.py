"""Captions for training: a concept's names through templates."""

from __future__ import annotations

import random

from zsic_index.builtin.train.concepts import Concept

# The default of transformers' pipeline comes first.
TEMPLATES: tuple[str, ...] = (
    "This is a photo of {}.",
    "a photo of a {}.",
    "a photo of {}",
    "a picture of a {}.",
    "a picture of {}",
    "an image of a {}",
    "an image of {}.",
    "a drawing of a {}.",
    "a drawing of {}",
    "an icon of a {}.",
    "an icon of {}",
    "a {} icon",
    "an emoji of a {}.",
    "an emoji of {}",
    "the {} emoji",
    "{} emoji",
    "a sticker of a {}",
    "a cartoon {}.",
    "an illustration of a {}.",
    "an illustration of {}",
    "clip art of a {}",
    "a symbol for {}",
    "a small {}",
    "a colourful {}",
    "this is a {}.",
    "one {}",
)
BARE_SHARE = 0.4
NAME_SHARE = 0.70
ALIAS_SHARE = 0.12
KEYWORD_AND_NAME_SHARE = 0.10  # the rest are two keywords


def draw_caption(concept: Concept, rng: random.Random) -> str:
    """Draw one caption of a concept."""
    name = _name(concept, rng)
    if rng.random() < BARE_SHARE:
        return name
    return rng.choice(TEMPLATES).format(name)


def build_corpus(concepts: list[Concept]) -> list[str]:
    """Return the training text of the tokenizer: names of the trained concepts, and the templates.

    Held-out concepts are left out of the vocabulary too: their names split into shorter tokens.
    """
    lines = [template.format("") for template in TEMPLATES] * 20
    for concept in concepts:
        if concept.trained:
            lines += [concept.label] * 3
            lines += [*concept.aliases, *concept.keywords]
    return lines


def _name(concept: Concept, rng: random.Random) -> str:
    share = rng.random()
    if share < NAME_SHARE:
        return concept.label
    if share < NAME_SHARE + ALIAS_SHARE:
        return rng.choice(concept.aliases) if concept.aliases else concept.label
    if not concept.keywords:
        return concept.label
    if share < NAME_SHARE + ALIAS_SHARE + KEYWORD_AND_NAME_SHARE:
        return f"{concept.label}, {rng.choice(concept.keywords)}"
    return " ".join(rng.sample(concept.keywords, min(2, len(concept.keywords))))
