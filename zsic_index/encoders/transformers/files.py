"""Find checkpoints in transformers' format: in a folder, or in a Hub repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zsic_index.encoders import hub
from zsic_index.encoders.checkpoint import (
    HUB_FILES,
    IMAGE_FILES,
    OPEN_CLIP_CONFIG,
    Checkpoint,
    TransformersFiles,
    digest,
    existing_files,
    hash_files,
    image_settings_fingerprint,
    major_version,
)
from zsic_index.encoders.families import find_family
from zsic_index.encoders.transformers import adapters
from zsic_index.encoders.weights import find_weights
from zsic_index.errors import ModelError
from zsic_index.records import Dtype

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weights, in the order in which transformers looks for them."""

_VOCABULARIES = ("tokenizer.json", "tokenizer.*.json", "vocab.json", "vocab.txt", "*.model")
"""Patterns of files that a vocabulary is read from; without one transformers makes an empty one."""


def find_in_folder(model_id: str, folder: Path, dtype: Dtype) -> Checkpoint:
    """Find a checkpoint in a folder, as ``save_pretrained`` writes it; or an adapter for another.

    Raises:
        ModelError: when something is missing, or its family is not supported.
    """
    if not adapters.has_adapter(folder):
        return _checkpoint(model_id, None, dtype, *_in_folder(model_id, folder))
    adapters.check_adapter(model_id, folder)
    if (folder / "config.json").is_file():
        base = _in_folder(model_id, folder)
    else:
        base = _find_base(model_id, folder)
    return _checkpoint(model_id, None, dtype, *base, adapter=folder)


def find_in_repository(repo_id: str, revision: str | None, dtype: Dtype) -> Checkpoint:
    """Find a checkpoint in a Hub repository, fetching it if it is not in the cache.

    An adapter in it is applied to its own base, even if a whole model lies beside it.

    Raises:
        ModelError: when it is not available, something is missing, or its family is not supported.
    """
    folder, commit = _fetch(repo_id, revision, _find_missing_on_hub)
    if not adapters.has_adapter(folder):
        return _checkpoint(repo_id, commit, dtype, *_in_snapshot(repo_id, folder, commit))
    adapters.check_adapter(repo_id, folder)
    return _checkpoint(repo_id, commit, dtype, *_find_base(repo_id, folder), adapter=folder)


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


def _in_folder(model_id: str, folder: Path) -> tuple[TransformersFiles, list[str]]:
    """Return a folder's checkpoint and its identity, without regard to an adapter."""
    files = _files(model_id, folder)
    missing = _find_missing(folder)
    if missing:
        raise ModelError(
            f"model {model_id}: no {', '.join(missing)} in {folder}: save model, tokenizer and "
            "image processor there with save_pretrained(...)"
        )
    return files, ["files", *hash_files([*files.weights, *_text_files(folder)])]


def _in_snapshot(repo_id: str, folder: Path, commit: str) -> tuple[TransformersFiles, list[str]]:
    """Return a snapshot's checkpoint and its identity, without regard to an adapter."""
    files = _files(repo_id, folder)
    return files, ["hub", repo_id, commit, *hub.name_weights(files.weights, _WEIGHTS)]


def _find_base(model_id: str, adapter: Path) -> tuple[TransformersFiles, list[str]]:
    """Return the checkpoint that an adapter is for, and its identity."""
    base = adapters.read_base(model_id, adapter)
    if Path(base).is_dir():
        return _in_folder(base, Path(base).absolute())
    if Path(base).is_absolute() or base.startswith(".") or base.count("/") > 1:
        raise ModelError(
            f"model {model_id}: there is no folder {base}, which its adapter_config.json names as "
            "base_model_name_or_path: correct it"
        )
    return _in_snapshot(base, *_fetch(base, None, _find_missing))


def _fetch(
    repo_id: str, revision: str | None, find_missing: Callable[[Path], list[str]]
) -> tuple[Path, str]:
    return hub.fetch_snapshot(
        repo_id,
        revision,
        files=[*HUB_FILES, *adapters.ADAPTER_FILES],
        weights=_WEIGHTS,
        find_missing=find_missing,
    )


def _checkpoint(
    model_id: str,
    revision: str | None,
    dtype: Dtype,
    files: TransformersFiles,
    identity: Sequence[str],
    adapter: Path | None = None,
) -> Checkpoint:
    if adapter is not None:
        files = replace(files, adapter=adapter)
        identity = [*identity, *adapters.adapter_identity(adapter)]
    fingerprint = encoder_fingerprint(dtype, identity)
    images = image_settings_fingerprint(fingerprint, files.folder)
    return Checkpoint(model_id, revision, files, dtype, fingerprint, images)


def _files(model_id: str, folder: Path) -> TransformersFiles:
    config = _read_config(model_id, folder / "config.json")
    family = find_family(str(config.get("model_type")), model_id)
    weights, lacking = find_weights(folder, _WEIGHTS)
    if not weights:
        raise ModelError(
            f"model {model_id}: no {_name_weights(lacking)} in {folder}: fetch or save the "
            "checkpoint again"
        )
    return TransformersFiles(folder, weights, family)


def _name_weights(lacking: list[str]) -> str:
    """Return the names of weights that a folder lacks, given those of missing parts."""
    return ", ".join(lacking) or f"{_WEIGHTS[0]} or {_WEIGHTS[2]}"


def _text_files(folder: Path) -> list[Path]:
    """Return all files, except the weights, that a prompt's embedding may depend on.

    A file too many causes a needless cache miss, one too few a wrong embedding: tokenizers come in
    many files, and an adapter in the folder is loaded too.
    """
    kinds = ("*.json", "*.txt", "*.model", "*.bpe", "*.tiktoken", "adapter_*")
    paths = {path for kind in kinds for path in folder.glob(kind) if path.is_file()}
    return sorted(path for path in paths if path.name not in IMAGE_FILES)


def _find_missing_on_hub(folder: Path) -> list[str]:
    """Return the names of needed files that a repository's snapshot lacks."""
    if adapters.has_adapter(folder):
        return adapters.find_missing(folder)
    return _find_missing(folder)


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
    weights, lacking = find_weights(folder, _WEIGHTS)
    needed = {
        "config.json": existing_files(folder, "config.json"),
        "preprocessor_config.json": existing_files(folder, *IMAGE_FILES),
        "tokenizer files": [path for kind in _VOCABULARIES for path in folder.glob(kind)],
        _name_weights(lacking): weights,
    }
    return [name for name, paths in needed.items() if not paths]


def _read_config(model_id: str, path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        own_weights = config.get("transformers_weights")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"model {model_id}: {path} cannot be read: {error}") from error
    if own_weights:
        # transformers would read that file, which the fingerprint does not cover.
        raise ModelError(
            f"model {model_id}: {path} names {own_weights!r} as its weights, "
            f"which is not supported: rename that file to {_WEIGHTS[0]} and remove the entry"
        )
    return config
