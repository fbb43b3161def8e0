"""Choice of the sample images; they are kept out of training."""

from __future__ import annotations

# Varied, recognisable things, chosen before any model was measured; see ``assign`` for their sets.
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

# Sets whose licence allows to redistribute pictures with a notice or a credit.
SAMPLE_SETS: tuple[str, ...] = (
    "noto",
    "fluent-emoji",
    "fxemoji",
    "fluent-emoji-flat",
    "noto-v1",
    "fluent-emoji-high-contrast",
)

# Sets that draw a concept almost alike: a sample from one bars the drawings of all from training.
TWINS: tuple[frozenset[str], ...] = (
    frozenset({"noto", "noto-v1"}),
    frozenset({"fxemoji"}),
    frozenset({"fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast"}),
)


def assign(available: dict[str, set[str]]) -> dict[str, str]:
    """Assign the sets to the sample labels in turn.

    Args:
        available: sample label → sets that draw it.

    Returns:
        Sample label → its set: the one whose turn it is or, if that lacks the label, the next.
    """
    chosen: dict[str, str] = {}
    for turn, label in enumerate(SAMPLE_LABELS):
        order = [SAMPLE_SETS[(turn + step) % len(SAMPLE_SETS)] for step in range(len(SAMPLE_SETS))]
        chosen[label] = next(name for name in order if name in available[label])
    return chosen


def find_barred(chosen: dict[str, str]) -> set[tuple[str, str]]:
    """Return the (label, set) pairs that must not be trained on."""
    return {
        (label, twin)
        for label, name in chosen.items()
        for family in TWINS
        if name in family
        for twin in family
    }
