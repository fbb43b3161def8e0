"""Find checkpoints in open_clip's format: in a folder, in a Hub repository, or by name."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from zsic_index.encoders import hub
from zsic_index.encoders.checkpoint import (
    HUB_FILES,
    OPEN_CLIP_CONFIG,
    TOKENIZER_FILES,
    Checkpoint,
    OpenClipFiles,
    digest,
    existing_files,
    hash_files,
    image_libraries,
    major_version,
    refuse_revision,
)
from zsic_index.errors import ModelError
from zsic_index.records import Dtype

PREFIX = "open_clip:"
"""Prefix of a folder, of ``ARCHITECTURE/TAG``, or of ``ARCHITECTURE/`` and a file."""

HUB_PREFIX = "hf-hub:"
"""Prefix of a Hub repository, as in open_clip."""

_LOCAL = "local-dir:"
"""Prefix of a folder in open_clip's own names."""

_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Names of the file of weights in a folder, in the order in which open_clip looks for them."""

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
"""Ends of the names of files of weights."""


def find_by_name(model_id: str, revision: str | None, dtype: Dtype) -> Checkpoint:
    """Find a checkpoint by a name that starts with ``open_clip:``.

    Raises:
        ModelError: when it is not available, or open_clip is not installed.
    """
    rest = model_id.removeprefix(PREFIX)
    if rest.startswith(HUB_PREFIX):
        return find_in_repository(model_id, rest.removeprefix(HUB_PREFIX), revision, dtype)
    if Path(rest).expanduser().is_dir():
        refuse_revision(model_id, revision)
        return find_in_folder(Path(rest).expanduser(), dtype)
    architecture, _, source = rest.partition("/")
    if not source:
        raise ModelError(
            f"model {model_id}: give an architecture and its weights, such as "
            f"{PREFIX}ViT-B-32/laion2b_s34b_b79k or {PREFIX}ViT-B-32/weights.safetensors, "
            f"or an existing folder with an {OPEN_CLIP_CONFIG}"
        )
    _check_installed()
    if source.endswith(_SUFFIXES):
        refuse_revision(model_id, revision)
        return _find_with_file(architecture, Path(source).expanduser(), dtype)
    return _find_with_tag(architecture, source, revision, dtype)


def find_in_folder(folder: Path, dtype: Dtype) -> Checkpoint:
    """Find a checkpoint in a folder with an ``open_clip_config.json``.

    Raises:
        ModelError: when something is missing, or open_clip is not installed.
    """
    folder = folder.absolute()
    files = _files(f"{PREFIX}{folder}", folder)
    text_files = existing_files(folder, OPEN_CLIP_CONFIG, *TOKENIZER_FILES)
    identity = ["files", *hash_files([files.weights, *text_files])]
    return _checkpoint(f"{PREFIX}{folder}", None, files, dtype, identity)


def find_in_repository(
    model_id: str, repo_id: str, revision: str | None, dtype: Dtype
) -> Checkpoint:
    """Find a checkpoint in a Hub repository with an ``open_clip_config.json``.

    Raises:
        ModelError: when it is not available, or open_clip is not installed.
    """
    _check_installed()
    folder, commit = hub.fetch_snapshot(
        repo_id,
        revision,
        files=HUB_FILES,
        weights=_WEIGHTS,
        find_missing=lambda path: _find_missing(path, [OPEN_CLIP_CONFIG], _WEIGHTS),
    )
    files = _files(model_id, folder)
    identity = ["hub", repo_id, commit, *hub.name_weights([files.weights], _WEIGHTS)]
    return _checkpoint(model_id, commit, files, dtype, identity)


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint for open_clip and none for transformers."""
    return (folder / OPEN_CLIP_CONFIG).is_file() and not (folder / "config.json").exists()


def _find_with_file(architecture: str, weights: Path, dtype: Dtype) -> Checkpoint:
    model_id = f"{PREFIX}{architecture}/{weights.absolute()}"
    if not weights.is_file():
        raise ModelError(f"model {model_id}: there is no such file")
    identity = [*_architecture_identity(architecture), "files", *hash_files([weights])]
    return _checkpoint(model_id, None, OpenClipFiles(architecture, weights), dtype, identity)


def _find_with_tag(architecture: str, tag: str, revision: str | None, dtype: Dtype) -> Checkpoint:
    from zsic_index.encoders.open_clip import names as open_clip_names

    model_id = f"{PREFIX}{architecture}/{tag}"
    repo_id, names = open_clip_names.find_repository(architecture, tag)
    folder, commit = hub.fetch_snapshot(
        repo_id,
        revision,
        files=(),
        weights=names,
        find_missing=lambda path: _find_missing(path, names),
    )
    weights = _first_existing(model_id, folder, names)
    identity = [*_architecture_identity(architecture), "hub", repo_id, commit]
    identity += hub.name_weights([weights], names)
    files = OpenClipFiles(architecture, weights, tag)
    return _checkpoint(model_id, commit, files, dtype, identity)


def _architecture_identity(architecture: str) -> list[str]:
    """Return the configuration of an architecture, and repository and commit of its tokenizer."""
    # This imports torch.
    from zsic_index.encoders.open_clip import names as open_clip_names

    tokenizer = open_clip_names.find_tokenizer(architecture)
    identity = [open_clip_names.read_configuration(architecture)]
    if tokenizer is None:
        return identity
    _, commit = hub.fetch_snapshot(
        tokenizer,
        None,
        files=HUB_FILES,
        weights=(),
        find_missing=lambda path: _find_missing(path, TOKENIZER_FILES),
    )
    return [*identity, tokenizer, commit]


def _files(model_id: str, folder: Path) -> OpenClipFiles:
    _check_installed()
    _check_config(model_id, folder / OPEN_CLIP_CONFIG)
    return OpenClipFiles(f"{_LOCAL}{folder}", _first_existing(model_id, folder, _WEIGHTS))


def _find_missing(folder: Path, *groups: Iterable[str]) -> list[str]:
    """Return the first name of each group of which the folder has no file."""
    return [next(iter(names)) for names in groups if not existing_files(folder, *names)]


def _first_existing(model_id: str, folder: Path, names: Iterable[str]) -> Path:
    paths = existing_files(folder, *names)
    if not paths:
        raise ModelError(
            f"model {model_id}: none of {', '.join(names)} in {folder}: fetch or save the "
            "checkpoint again"
        )
    return paths[0]


def _check_config(model_id: str, path: Path) -> None:
    """Raise a ModelError if the configuration cannot be read, or asks to run code."""
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
        asks_for_code = "trust_remote_code" in (text.get("tokenizer_kwargs") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"model {model_id}: {path} cannot be read: {error!r}") from error
    if asks_for_code:
        # open_clip would pass it on to transformers.
        raise ModelError(
            f"model {model_id}: {path} asks to run code from the checkpoint "
            "(trust_remote_code), which is never done: take another checkpoint"
        )


def _read_text_configuration(files: OpenClipFiles) -> dict[str, Any]:
    """Return the configuration of a checkpoint's text tower."""
    if files.name.startswith(_LOCAL):
        path = Path(files.name.removeprefix(_LOCAL)) / OPEN_CLIP_CONFIG
        configuration = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    else:
        # This imports torch.
        from zsic_index.encoders.open_clip import names as open_clip_names

        configuration = json.loads(open_clip_names.read_configuration(files.name))
    text: dict[str, Any] = configuration["text_cfg"]
    return text


def _check_installed() -> None:
    try:
        importlib.metadata.version("open_clip_torch")
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            "open_clip models need open_clip: pip install 'zsic-index[open-clip]'"
        ) from None


def _checkpoint(
    model_id: str,
    revision: str | None,
    files: OpenClipFiles,
    dtype: Dtype,
    identity: Iterable[str],
) -> Checkpoint:
    text_model = _read_text_configuration(files).get("hf_model_name")
    if text_model:
        folder, commit = hub.fetch_snapshot(
            text_model,
            None,
            files=["config.json"],
            weights=(),
            find_missing=lambda path: _find_missing(path, ["config.json"]),
        )
        files = replace(files, text_model=folder)
        identity = [*identity, text_model, commit]
    version = f"open_clip {major_version('open_clip_torch')}"
    fingerprint = digest("open-clip/1", dtype, version, *identity)
    images = digest("images/1", fingerprint, files.tag or "", *image_libraries())
    return Checkpoint(model_id, revision, files, dtype, fingerprint, images)
