"""What differs between the families of checkpoints, as data."""

from __future__ import annotations

from dataclasses import dataclass

from zsic_index.records import Activation


@dataclass(frozen=True, slots=True)
class Family:
    """How transformers' zero-shot pipeline treats one ``model_type``.

    Attributes:
        activation: what turns logits into probabilities.
        text_length: the length that every prompt is padded to, or None where padding does not
            matter: a causal tower that reads its result at the end-of-text token never sees what
            comes after it.
    """

    activation: Activation
    text_length: int | None = None


FAMILIES: dict[str, Family] = {
    "clip": Family(activation="softmax"),
    # SigLIP's text tower looks in both directions and has no mask, so the padding is part of the
    # input; the pipeline always pads to 64, whatever the checkpoint's configuration says.
    "siglip": Family(activation="sigmoid", text_length=64),
}
"""The families that are supported, by the ``model_type`` of their ``config.json``."""
