"""Checkpoints and the encoders made from them. Importing this room imports no torch."""

from zsic_index.encoders.base import EncodedImages, EncodedPrompts, Encoder, Pixels
from zsic_index.encoders.checkpoint import Checkpoint, resolve

__all__ = [
    "Checkpoint",
    "EncodedImages",
    "EncodedPrompts",
    "Encoder",
    "Pixels",
    "load",
    "resolve",
]


def load(checkpoint: Checkpoint, *, device: str = "auto") -> Encoder:
    """Load a checkpoint's two towers.

    Args:
        checkpoint: what ``resolve`` found.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; auto takes a GPU when there is
            one.

    Raises:
        ModelError: when it cannot be loaded, or there is no such device.
    """
    # torch and transformers take seconds to import.
    from zsic_index.encoders.two_towers import TwoTowerEncoder

    return TwoTowerEncoder.load(checkpoint, device=device)
