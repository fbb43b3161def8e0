"""Checkpoints and the encoders made from them. Importing this room imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from zsic_index import builtin
from zsic_index.encoders.base import EncodedImages, EncodedPrompts, Encoder, Pixels, Tokens
from zsic_index.encoders.checkpoint import Checkpoint, OpenClipFiles, refuse_revision
from zsic_index.encoders.open_clip import files as open_clip_files
from zsic_index.encoders.transformers import files as transformers_files
from zsic_index.errors import ModelError
from zsic_index.records import Dtype

__all__ = [
    "Checkpoint",
    "EncodedImages",
    "EncodedPrompts",
    "Encoder",
    "Pixels",
    "Tokens",
    "load",
    "resolve",
]


def resolve(model: str | Path, revision: str | None = None, dtype: Dtype = "float32") -> Checkpoint:
    """Find a checkpoint.

    Args:
        model: ``builtin:clip``, ``builtin:siglip``, a folder in the format of transformers or
            open_clip, a Hub id such as ``openai/clip-vit-large-patch14``, or a model of open_clip:
            ``open_clip:ViT-B-32/laion2b_s34b_b79k``, ``open_clip:ViT-B-32/weights.safetensors``,
            ``hf-hub:imageomics/bioclip``.
        revision: branch, tag or commit of what comes from the Hub.
        dtype: what its towers shall compute in.

    Raises:
        ModelError: when it is not to be had, or of a family that is not supported.
    """
    model = str(model)
    if dtype not in get_args(Dtype):
        raise ModelError(f"dtype {dtype!r}: use {', '.join(get_args(Dtype))}")
    if model.startswith(builtin.PREFIX):
        refuse_revision(model, revision)
        try:
            return transformers_files.in_folder(model, builtin.model_path(model), dtype)
        except ValueError as error:
            raise ModelError(str(error)) from None
    if model.startswith(open_clip_files.PREFIX):
        return open_clip_files.named(model, revision, dtype)
    if model.startswith(open_clip_files.HUB_PREFIX):
        repo_id = model.removeprefix(open_clip_files.HUB_PREFIX)
        return open_clip_files.in_repository(model, repo_id, revision, dtype)
    try:
        folder = Path(model).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        # A name too long for a path, the home of nobody, a NUL.
        raise ModelError(f"model {model[:80]!r}: {error}") from error
    if is_folder:
        refuse_revision(model, revision)
        if open_clip_files.is_folder(folder):
            return open_clip_files.in_folder(folder, dtype)
        return transformers_files.in_folder(str(folder.absolute()), folder, dtype)
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ModelError(f"model {model}: there is no such folder")
    return transformers_files.in_repository(model, revision, dtype)


def load(checkpoint: Checkpoint, *, device: str = "auto") -> Encoder:
    """Load a checkpoint's two towers.

    Args:
        checkpoint: what ``resolve`` found.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; auto takes a GPU when there is
            one.

    Raises:
        ModelError: when it cannot be loaded, or there is no such device.
    """
    # torch and the libraries of models take seconds to import.
    if isinstance(checkpoint.files, OpenClipFiles):
        from zsic_index.encoders.open_clip.encoder import OpenClipEncoder

        return OpenClipEncoder.load(checkpoint, checkpoint.files, device=device)
    from zsic_index.encoders.transformers.encoder import TransformersEncoder

    return TransformersEncoder.load(checkpoint, checkpoint.files, device=device)
