"""The sample images: chosen before any result was known, and kept out of training."""

from __future__ import annotations

# The list is fixed: varied, recognisable things. The set is dealt out in turn by ``assign``.
SAMPLE_LABELS: tuple[str, ...] = (
    "dog face",
    "red apple",
    "automobile",
    "umbrella",
    "smiling face with sunglasses",
    "rainbow",
    "elephant",
    "pizza",
    "bicycle",
    "guitar",
    "crying face",
    "cloud with rain",
    "lion",
    "banana",
    "rocket",
    "key",
    "robot",
    "snow-capped mountain",
    "octopus",
    "hamburger",
    "sailboat",
    "light bulb",
    "ghost",
    "house",
    "butterfly",
    "strawberry",
    "airplane",
    "camera",
    "alien",
    "castle",
    "frog",
    "birthday cake",
    "fire engine",
    "alarm clock",
    "cactus",
    "soccer ball",
    "penguin",
    "hot beverage",
    "helicopter",
    "trophy",
)

# What ships as a picture must be free to pass on with nothing but a notice or a credit.
SAMPLE_SETS: tuple[str, ...] = (
    "noto",
    "fluent-emoji",
    "fxemoji",
    "fluent-emoji-flat",
    "noto-v1",
    "fluent-emoji-high-contrast",
)

# Sets whose drawings of a concept are near-twins: one in the samples bars all from training.
TWINS: tuple[frozenset[str], ...] = (
    frozenset({"noto", "noto-v1"}),
    frozenset({"fxemoji"}),
    frozenset({"fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast"}),
)


def assign(available: dict[str, set[str]]) -> dict[str, str]:
    """Deal the sets out to the sample labels in turn.

    Args:
        available: for each sample label the sets that draw it.

    Returns:
        The set of each label; where the set whose turn it is lacks the label, the next one has it.
    """
    chosen: dict[str, str] = {}
    for turn, label in enumerate(SAMPLE_LABELS):
        order = [SAMPLE_SETS[(turn + step) % len(SAMPLE_SETS)] for step in range(len(SAMPLE_SETS))]
        chosen[label] = next(name for name in order if name in available[label])
    return chosen


def barred(chosen: dict[str, str]) -> set[tuple[str, str]]:
    """Return the (label, set) pairs that must not be trained on."""
    return {
        (label, twin)
        for label, name in chosen.items()
        for family in TWINS
        if name in family
        for twin in family
    }
