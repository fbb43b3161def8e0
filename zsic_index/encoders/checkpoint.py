"""What a checkpoint is once its files are found, and the parts that fingerprints are made of.

Nothing here or in the modules that find files imports torch or transformers: a build with nothing
new stops before it needs them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zsic_index.encoders.families import Family
from zsic_index.errors import ModelError
from zsic_index.records import Dtype

OPEN_CLIP_CONFIG = "open_clip_config.json"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)

HUB_FILES = ("*.json", "*.txt", "*.model")
"""Patterns of all but the weights."""


@dataclass(frozen=True, slots=True)
class TransformersFiles:
    """A checkpoint in transformers' format.

    Attributes:
        folder: where the files are.
        weights: those with the tensors.
        family: how to treat it.
    """

    folder: Path
    weights: tuple[Path, ...]
    family: Family


@dataclass(frozen=True, slots=True)
class OpenClipFiles:
    """A checkpoint in open_clip's format.

    Attributes:
        name: what open_clip calls the model: an architecture, or ``local-dir:`` and a folder.
        weights: the file with the tensors.
        tag: the pretrained tag that says how images are prepared, where ``name`` does not.
    """

    name: str
    weights: Path
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are on this machine.

    Attributes:
        model_id: what ``resolve`` finds it by: ``builtin:clip``, a folder, a Hub id,
            ``open_clip:...``, ``hf-hub:...``.
        revision: the pinned Hub commit; None for local files.
        files: what to load it from.
        dtype: what its towers compute in.
        fingerprint: sha256, hexadecimal, of all that a prompt's embedding depends on: weights,
            configuration and tokenizer files (or the Hub commit, which fixes them), the major
            version of the library that reads them, the towers' dtype, and how they are used.
        image_fingerprint: the same for an image's embedding: all of the above, and what turns
            pixels into the vision tower's input.
    """

    model_id: str
    revision: str | None
    files: TransformersFiles | OpenClipFiles
    dtype: Dtype
    fingerprint: str
    image_fingerprint: str


def existing(folder: Path, *names: str) -> tuple[Path, ...]:
    """Return those files of a folder that are there."""
    return tuple(folder / name for name in names if (folder / name).is_file())


def hashes(paths: Iterable[Path]) -> list[str]:
    """Return the name of each file and the sha256 of what is in it."""
    return [part for path in paths for part in (path.name, _hash(path))]


def digest(*parts: str) -> str:
    """Return the sha256, hexadecimal, of a list of texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def image_libraries() -> list[str]:
    """Return what decodes and scales images: Pillow, and torchvision where it is installed.

    transformers takes torchvision when it is there, which gives other pixels than Pillow.
    """
    names = ["pillow"]
    if importlib.util.find_spec("torchvision") is not None:
        names.append("torchvision")
    return [f"{name} {major_version(name)}" for name in names]


def major_version(distribution: str) -> str:
    """Return the first number of an installed distribution's version."""
    return importlib.metadata.version(distribution).split(".")[0]


def refuse_revision(model: str, revision: str | None) -> None:
    """Raise a ModelError when a revision was given for something that has none."""
    if revision is not None:
        raise ModelError(
            f"model {model}: revision {revision!r} given, but only Hub models have revisions"
        )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
