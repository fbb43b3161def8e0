"""Find checkpoints in transformers' format: in a folder, or in a Hub repository."""

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
    existing_files,
    hash_files,
    image_libraries,
    major_version,
)
from zsic_index.encoders.families import find_family
from zsic_index.errors import ModelError
from zsic_index.records import Dtype

_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")


def find_in_folder(model_id: str, folder: Path, dtype: Dtype) -> Checkpoint:
    """Find a checkpoint in a folder, as ``save_pretrained`` writes it.

    Raises:
        ModelError: when something is missing, or its family is not supported.
    """
    files = _files(model_id, folder)
    missing = _find_missing(folder)
    if missing:
        raise ModelError(
            f"model {model_id}: no {', '.join(missing)} in {folder}: save model, tokenizer and "
            "image processor there with save_pretrained(...)"
        )
    identity = ["files", *hash_files([*files.weights, *_text_files(folder)])]
    return _checkpoint(model_id, None, files, dtype, identity)


def find_in_repository(repo_id: str, revision: str | None, dtype: Dtype) -> Checkpoint:
    """Find a checkpoint in a Hub repository, fetching it if it is not in the cache.

    Raises:
        ModelError: when it is not available, something is missing, or its family is not supported.
    """
    folder, commit = hub.fetch_snapshot(
        repo_id, revision, files=[*HUB_FILES, "model*.safetensors"], find_missing=_find_missing
    )
    files = _files(repo_id, folder)
    return _checkpoint(repo_id, commit, files, dtype, ["hub", repo_id, commit])


def encoder_fingerprint(dtype: Dtype, identity: Iterable[str]) -> str:
    """Return the sha256, hexadecimal, of everything that a prompt's embedding depends on.

    Prompts are tokenised with special tokens, cut to the tower's length, and padded as the family
    requires; the projected output of the tower is normalised in float32. If any of this changes,
    the first part of the hash must change.

    Args:
        dtype: dtype that the towers compute in.
        identity: hashes or names of the weights, the configuration and the tokenizer.
    """
    return digest("two-towers/1", dtype, f"transformers {major_version('transformers')}", *identity)


def _checkpoint(
    model_id: str,
    revision: str | None,
    files: TransformersFiles,
    dtype: Dtype,
    identity: Iterable[str],
) -> Checkpoint:
    fingerprint = encoder_fingerprint(dtype, identity)
    settings = hash_files(existing_files(files.folder, *_IMAGE_FILES))
    images = digest("images/1", fingerprint, *settings, *image_libraries())
    return Checkpoint(model_id, revision, files, dtype, fingerprint, images)


def _files(model_id: str, folder: Path) -> TransformersFiles:
    family = find_family(_read_model_type(model_id, folder / "config.json"), model_id)
    weights = _weights(folder)
    if not weights:
        raise ModelError(
            f"model {model_id}: no model.safetensors in {folder}, nor all of the parts that its "
            "index names: convert the checkpoint with save_pretrained(...)"
        )
    return TransformersFiles(folder, weights, family)


def _text_files(folder: Path) -> list[Path]:
    """Return all files, except the weights, that a prompt's embedding may depend on.

    A file too many causes a needless cache miss, one too few a wrong embedding: tokenizers come in
    many files, and an adapter in the folder is loaded too.
    """
    kinds = ("*.json", "*.txt", "*.model", "*.bpe", "*.tiktoken", "adapter_*")
    paths = {path for kind in kinds for path in folder.glob(kind) if path.is_file()}
    return sorted(path for path in paths if path.name not in _IMAGE_FILES)


def _find_missing(folder: Path) -> list[str]:
    """Return the names of needed files that a folder lacks.

    Raises:
        ModelError: when it is a checkpoint of open_clip.
    """
    if existing_files(folder, OPEN_CLIP_CONFIG) and not existing_files(folder, "config.json"):
        repo_id = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        raise ModelError(
            f"model {repo_id}: its files are open_clip's: name it hf-hub:{repo_id} instead"
        )
    needed = {
        "config.json": existing_files(folder, "config.json"),
        "preprocessor_config.json": existing_files(folder, *_IMAGE_FILES),
        "tokenizer files": existing_files(folder, *TOKENIZER_FILES),
        "model.safetensors": _weights(folder),
    }
    return [name for name, paths in needed.items() if not paths]


def _weights(folder: Path) -> tuple[Path, ...]:
    """Return the files of weights that transformers would read; none if one of them is missing."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists() or not index.exists():
        return existing_files(folder, "model.safetensors")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    paths = existing_files(folder, *names)
    return paths if len(paths) == len(names) else ()


def _read_model_type(model_id: str, path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"model {model_id}: {path} cannot be read: {error}") from error
