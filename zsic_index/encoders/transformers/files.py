"""Finding a checkpoint in transformers' format: in a folder, or in a Hub repository."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from zsic_index.encoders import hub
from zsic_index.encoders.checkpoint import (
    HUB_FILES,
    OPEN_CLIP_CONFIG,
    TOKENIZER_FILES,
    Checkpoint,
    TransformersFiles,
    digest,
    existing,
    hashes,
    image_libraries,
    major_version,
)
from zsic_index.encoders.families import FAMILIES, Family
from zsic_index.errors import ModelError
from zsic_index.records import Dtype

_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")


def in_folder(model_id: str, folder: Path, dtype: Dtype) -> Checkpoint:
    """Find a checkpoint in a folder.

    Raises:
        ModelError: when something is missing, or its family is not supported.
    """
    files = _files(model_id, folder)
    lacking = _missing(folder)
    if lacking:
        raise ModelError(
            f"model {model_id}: no {', '.join(lacking)} in {folder}: save model, tokenizer and "
            "image processor there with save_pretrained(...)"
        )
    identity = ["files", *hashes([*files.weights, *_text_files(folder)])]
    return _checkpoint(model_id, None, files, dtype, identity)


def in_repository(repo_id: str, revision: str | None, dtype: Dtype) -> Checkpoint:
    """Find a checkpoint in a Hub repository, which is fetched where it is not in the cache.

    Raises:
        ModelError: when it is not to be had, something is missing, or its family is not supported.
    """
    folder, commit = hub.snapshot(
        repo_id, revision, files=[*HUB_FILES, "model*.safetensors"], missing=_missing
    )
    files = _files(repo_id, folder)
    return _checkpoint(repo_id, commit, files, dtype, ["hub", repo_id, commit])


def encoder_fingerprint(dtype: Dtype, identity: Iterable[str]) -> str:
    """Return the sha256, hexadecimal, of all that a prompt's embedding depends on.

    Prompts are tokenised with special tokens, cut to the tower's length, padded as the family says;
    the tower's projected output is normalised in float32. A change of that is a new first part.

    Args:
        dtype: what the towers compute in.
        identity: what names the weights, the configuration and the tokenizer.
    """
    return digest("two-towers/1", dtype, f"transformers {major_version('transformers')}", *identity)


def family_of(model_type: str, model_id: str) -> Family:
    """Return how to treat a ``model_type``.

    Raises:
        ModelError: when it is not supported; the message names ``model_id`` and those that are.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"model {model_id}: its model_type {model_type!r} is not supported; "
            f"supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def _checkpoint(
    model_id: str,
    revision: str | None,
    files: TransformersFiles,
    dtype: Dtype,
    identity: Iterable[str],
) -> Checkpoint:
    fingerprint = encoder_fingerprint(dtype, identity)
    settings = hashes(existing(files.folder, *_IMAGE_FILES))
    images = digest("images/1", fingerprint, *settings, *image_libraries())
    return Checkpoint(model_id, revision, files, dtype, fingerprint, images)


def _files(model_id: str, folder: Path) -> TransformersFiles:
    family = family_of(_model_type(model_id, folder / "config.json"), model_id)
    weights = _weights(folder)
    if not weights:
        raise ModelError(
            f"model {model_id}: no model.safetensors in {folder}, nor all of the parts that its "
            "index names: convert the checkpoint with save_pretrained(...)"
        )
    return TransformersFiles(folder, weights, family)


def _text_files(folder: Path) -> list[Path]:
    """Return all that may have a part in a prompt's embedding, but the weights.

    A file too many makes for a needless miss, one too few for a wrong number: tokenizers come in
    many files, and an adapter that lies in the folder is loaded too.
    """
    kinds = ("*.json", "*.txt", "*.model", "*.bpe", "*.tiktoken", "adapter_*")
    found = {path for kind in kinds for path in folder.glob(kind) if path.is_file()}
    return sorted(path for path in found if path.name not in _IMAGE_FILES)


def _missing(folder: Path) -> list[str]:
    if existing(folder, OPEN_CLIP_CONFIG) and not existing(folder, "config.json"):
        repo_id = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        raise ModelError(
            f"model {repo_id}: its files are open_clip's: name it hf-hub:{repo_id} instead"
        )
    needed = {
        "config.json": existing(folder, "config.json"),
        "preprocessor_config.json": existing(folder, *_IMAGE_FILES),
        "tokenizer files": existing(folder, *TOKENIZER_FILES),
        "model.safetensors": _weights(folder),
    }
    return [name for name, found in needed.items() if not found]


def _weights(folder: Path) -> tuple[Path, ...]:
    """Return the files that transformers would read; none when one of several is missing."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists() or not index.exists():
        return existing(folder, "model.safetensors")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    found = existing(folder, *names)
    return found if len(found) == len(names) else ()


def _model_type(model_id: str, path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"model {model_id}: {path} cannot be read: {error}") from error
