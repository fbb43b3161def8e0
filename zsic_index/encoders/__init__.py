"""Checkpoints, and the encoders that are loaded from them.

``resolve`` turns a model's name into a Checkpoint: its files on this machine, found by
``open_clip/files.py`` or ``transformers/files.py`` (through ``hub`` if they are on the Hub), and
its fingerprints. ``load`` turns a Checkpoint into an Encoder (the protocol in ``base``), whose
shared part is ``two_towers``. EncoderSource (``source``) loads one when it is first needed.
``onnx`` has vision towers that run without torch, and ``runtime`` chooses between the two.
To add a family of checkpoints, see ``families``. Importing this package does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from zsic_index import builtin
from zsic_index.encoders.base import (
    EncodedImages,
    EncodedPrompts,
    Encoder,
    Pixels,
    Tokens,
    VisionTower,
)
from zsic_index.encoders.checkpoint import Checkpoint, OpenClipFiles, refuse_revision
from zsic_index.encoders.onnx.files import TowerFiles
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
    "VisionTower",
    "load",
    "load_tower",
    "resolve",
]


def resolve(model: str | Path, revision: str | None = None, dtype: Dtype = "float32") -> Checkpoint:
    """Find the files of a checkpoint, fetching them from the Hub if necessary.

    Args:
        model: ``builtin:clip``, ``builtin:siglip``, a folder in the format of transformers or
            open_clip, a Hub id such as ``openai/clip-vit-large-patch14``, or a model of open_clip:
            ``open_clip:ViT-B-32/laion2b_s34b_b79k``, ``open_clip:ViT-B-32/weights.safetensors``,
            ``hf-hub:imageomics/bioclip``.
        revision: branch, tag or commit of a Hub repository.
        dtype: dtype that the towers compute in.

    Raises:
        ModelError: when it is not available, or its family is not supported.
    """
    model = str(model)
    if dtype not in get_args(Dtype):
        raise ModelError(f"dtype {dtype!r}: use {', '.join(get_args(Dtype))}")
    if model.startswith(builtin.PREFIX):
        refuse_revision(model, revision)
        try:
            return transformers_files.find_in_folder(model, builtin.model_path(model), dtype)
        except ValueError as error:
            raise ModelError(str(error)) from None
    if model.startswith(open_clip_files.PREFIX):
        return open_clip_files.find_by_name(model, revision, dtype)
    if model.startswith(open_clip_files.HUB_PREFIX):
        repo_id = model.removeprefix(open_clip_files.HUB_PREFIX)
        return open_clip_files.find_in_repository(model, repo_id, revision, dtype)
    try:
        folder = Path(model).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        # The name is too long for a path, has the home of an unknown user, or contains a NUL.
        raise ModelError(f"model {model[:80]!r}: {error}") from error
    if is_folder:
        refuse_revision(model, revision)
        if open_clip_files.is_checkpoint(folder):
            return open_clip_files.find_in_folder(folder, dtype)
        return transformers_files.find_in_folder(str(folder.absolute()), folder, dtype)
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ModelError(f"model {model}: there is no such folder")
    return transformers_files.find_in_repository(model, revision, dtype)


def load(checkpoint: Checkpoint, *, device: str = "auto") -> Encoder:
    """Load the two towers of a checkpoint.

    Args:
        checkpoint: checkpoint from ``resolve``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; auto is a GPU if there is one.

    Raises:
        ModelError: when it cannot be loaded, or there is no such device.
    """
    # torch, transformers and open_clip take seconds to import.
    if isinstance(checkpoint.files, OpenClipFiles):
        from zsic_index.encoders.open_clip.encoder import OpenClipEncoder

        return OpenClipEncoder.load(checkpoint, checkpoint.files, device=device)
    from zsic_index.encoders.transformers.encoder import TransformersEncoder

    return TransformersEncoder.load(checkpoint, checkpoint.files, device=device)


def load_tower(files: TowerFiles) -> VisionTower:
    """Load an ONNX tower; torch and transformers are imported only for unusual image settings.

    Raises:
        ModelError: when it cannot be loaded.
    """
    from zsic_index.encoders.onnx.tower import OnnxTower

    return OnnxTower.load(files.folder)
