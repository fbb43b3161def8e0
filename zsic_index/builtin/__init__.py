"""The small models that ship inside the package, with a label list and sample images for them.

They make the whole program run offline, with real weights and spread probabilities. They know
emoji drawings and nothing of photographs; ``MODEL_CARD.md`` beside this file has the figures.
"""

from __future__ import annotations

from pathlib import Path

from zsic_index.formats.tables import read_table_rows

PREFIX = "builtin:"
MODELS: tuple[str, ...] = ("builtin:clip", "builtin:siglip")
LABEL_FILES = {"builtin:emoji": "emoji.csv", "builtin:photo-tags": "photo_tags.csv"}
"""Names of label files in this package."""

_ROOM = Path(__file__).resolve().parent


def model_path(name: str) -> Path:
    """Return the checkpoint folder of a built-in model such as ``builtin:clip``.

    Raises:
        ValueError: for a name that is not in ``MODELS``.
    """
    if name not in MODELS:
        raise _unknown(name)
    return _ROOM / "models" / name.removeprefix(PREFIX)


def label_file(name: str) -> Path:
    """Return a label file of this package such as ``builtin:photo-tags``.

    Raises:
        ValueError: for a name that is not in ``LABEL_FILES``.
    """
    if name not in LABEL_FILES:
        raise ValueError(
            f"no built-in label file is called {name!r}; there are {', '.join(LABEL_FILES)}"
        )
    return _ROOM / LABEL_FILES[name]


def emoji_labels() -> Path:
    """Return the CSV of all emoji concepts: id, label, group, other names, translations."""
    return label_file("builtin:emoji")


def photo_tags() -> Path:
    """Return the CSV of everyday photo tags: id, label, parent, aliases, template, German."""
    return label_file("builtin:photo-tags")


def samples() -> list[Path]:
    """Return the sample images in a stable order."""
    return [_ROOM / "samples" / file for file in sample_labels()]


def sample_labels() -> dict[str, str]:
    """Return file name → right label of the sample images, in the order of ``samples``."""
    rows = read_table_rows(_ROOM / "samples" / "samples.csv", ("file", "label"))
    return {row.values["file"]: row.values["label"] for row in rows}


def _unknown(name: str) -> Exception:
    """Build what ``model_path`` raises; the one place to change for another error class."""
    return ValueError(f"no built-in model is called {name!r}; there are {', '.join(MODELS)}")
