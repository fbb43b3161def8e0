"""Checkpoints whose files are on this machine, and the parts of their fingerprints.

Neither this module nor those that find files import torch or transformers: a build without new
prompts finishes before it needs them.
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

IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
"""Names of the files of image settings in transformers' format."""

HUB_FILES = ("*.json", "*.txt", "*.model")
"""Patterns of all files in a Hub repository except the weights."""


@dataclass(frozen=True, slots=True)
class TransformersFiles:
    """A checkpoint in transformers' format.

    Attributes:
        folder: folder of the files.
        weights: files with the tensors.
        family: differences from CLIP.
        adapter: folder of an adapter of PEFT to apply, which may be the same; None without one.
    """

    folder: Path
    weights: tuple[Path, ...]
    family: Family
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class OpenClipFiles:
    """A checkpoint in open_clip's format.

    Attributes:
        name: open_clip's name of the model: an architecture, or ``local-dir:`` and a folder.
        weights: file with the tensors.
        tag: pretrained tag that defines the image transform; None if ``name`` defines it.
        text_model: folder with the configuration of a text tower of transformers; None for
            open_clip's own towers.
    """

    name: str
    weights: Path
    tag: str | None = None
    text_model: Path | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are on this machine.

    Attributes:
        model_id: name that ``resolve`` finds it by: ``builtin:clip``, a folder, a Hub id,
            ``open_clip:...``, ``hf-hub:...``.
        revision: pinned Hub commit; None for local files.
        files: files to load it from.
        dtype: dtype that the towers compute in.
        fingerprint: sha256, hexadecimal, of everything that a prompt's embedding depends on:
            weights, configuration and tokenizer files (or the Hub commit, which determines them),
            major version of the library that reads them, dtype, and how the towers are used.
        image_fingerprint: the same for an image's embedding: ``fingerprint``, and the settings and
            libraries that turn pixels into the vision tower's input.
    """

    model_id: str
    revision: str | None
    files: TransformersFiles | OpenClipFiles
    dtype: Dtype
    fingerprint: str
    image_fingerprint: str

    @property
    def has_onnx(self) -> bool:
        """True if its vision tower can be written as an ONNX file: not open_clip's, nor NaFlex."""
        return (
            isinstance(self.files, TransformersFiles)
            and self.files.family.has_fixed_input
            and self.dtype == "float32"
        )


def existing_files(folder: Path, *names: str) -> tuple[Path, ...]:
    """Return the paths of those names that are files in a folder."""
    return tuple(folder / name for name in names if (folder / name).is_file())


def hash_files(paths: Iterable[Path]) -> list[str]:
    """Return the name and the sha256 of each file, one after the other."""
    return [part for path in paths for part in (path.name, hash_file(path))]


def hash_file(path: Path) -> str:
    """Return the sha256, hexadecimal, of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: str) -> str:
    """Return the sha256, hexadecimal, of a list of texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def image_libraries() -> list[str]:
    """Return name and major version of the libraries that decode and scale images.

    These are Pillow, and torchvision if it is installed: transformers then prefers it, and its
    pixels differ from Pillow's.
    """
    names = ["pillow"]
    if has_torchvision():
        names.append("torchvision")
    return [f"{name} {major_version(name)}" for name in names]


def has_torchvision() -> bool:
    """Return True if torchvision is installed."""
    return importlib.util.find_spec("torchvision") is not None


def major_version(distribution: str) -> str:
    """Return the first number of an installed distribution's version."""
    return importlib.metadata.version(distribution).split(".")[0]


def image_settings_fingerprint(fingerprint: str, folder: Path, *more: str) -> str:
    """Return the fingerprint of image embeddings of a checkpoint in transformers' format.

    Args:
        fingerprint: fingerprint of the checkpoint.
        folder: folder with its image settings.
        more: anything else that the embeddings depend on.
    """
    settings = hash_files(existing_files(folder, *IMAGE_FILES))
    return digest("images/1", fingerprint, *settings, *image_libraries(), *more)


def refuse_revision(model: str, revision: str | None) -> None:
    """Raise a ModelError if a revision is given for a model that is not on the Hub."""
    if revision is not None:
        raise ModelError(
            f"model {model}: revision {revision!r} given, but only Hub models have revisions"
        )
