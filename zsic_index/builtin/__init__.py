"""Small models that ship with the package, label lists, and sample images.

With them the whole program runs offline with real weights. They are trained on drawings of emoji
and do not work on photographs; see ``MODEL_CARD.md`` beside this file.
"""

from __future__ import annotations

from pathlib import Path

from zsic_index.formats.tables import read_table_rows

PREFIX = "builtin:"
"""Prefix of the names of models and label files in this package."""

MODELS: tuple[str, ...] = ("builtin:clip", "builtin:siglip")
LABEL_FILES = {"builtin:emoji": "emoji.csv", "builtin:photo-tags": "photo_tags.csv"}
"""Name of a label file → its file name."""

_FOLDER = Path(__file__).resolve().parent


def model_path(name: str) -> Path:
    """Return the checkpoint folder of a built-in model, such as ``builtin:clip``.

    Raises:
        ValueError: for a name that is not in ``MODELS``.
    """
    if name not in MODELS:
        raise ValueError(f"no built-in model is called {name!r}; there are {', '.join(MODELS)}")
    return _FOLDER / "models" / name.removeprefix(PREFIX)


def label_file(name: str) -> Path:
    """Return a built-in label file, such as ``builtin:photo-tags``.

    Raises:
        ValueError: for a name that is not in ``LABEL_FILES``.
    """
    if name not in LABEL_FILES:
        raise ValueError(
            f"no built-in label file is called {name!r}; there are {', '.join(LABEL_FILES)}"
        )
    return _FOLDER / LABEL_FILES[name]


def emoji_labels() -> Path:
    """Return the CSV of all emoji: id, label, group, other names, translations."""
    return label_file("builtin:emoji")


def photo_tags() -> Path:
    """Return the CSV of everyday photo tags: id, label, parent, aliases, template, German."""
    return label_file("builtin:photo-tags")


def samples() -> list[Path]:
    """Return the sample images in a stable order."""
    return [_FOLDER / "samples" / file for file in sample_labels()]


def sample_labels() -> dict[str, str]:
    """Return file name → right label of each sample image, in the order of ``samples``."""
    rows = read_table_rows(_FOLDER / "samples" / "samples.csv", ("file", "label"))
    return {row.values["file"]: row.values["label"] for row in rows}
