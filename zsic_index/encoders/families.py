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
            comes after it, and the others mask it.
        divides_by_temperature: whether logits are similarities divided by ``model.temperature``,
            rather than multiplied by the exponential of ``model.logit_scale``.
        positions_follow_padding: whether positions are numbered from the padding token's id on, as
            in RoBERTa, so that fewer tokens fit than there are positions.
    """

    activation: Activation = "softmax"
    text_length: int | None = None
    divides_by_temperature: bool = False
    positions_follow_padding: bool = False


# SigLIP's text tower looks in both directions and has no mask, so the padding is part of the input;
# the pipeline always pads to 64, whatever the checkpoint's configuration says.
_SIGLIP = Family(activation="sigmoid", text_length=64)

FAMILIES: dict[str, Family] = {
    "align": Family(divides_by_temperature=True),
    "altclip": Family(positions_follow_padding=True),
    "blip": Family(),
    "chinese_clip": Family(),
    "clip": Family(),
    "metaclip_2": Family(),
    "siglip": _SIGLIP,
    "siglip2": _SIGLIP,
}
"""The families that are supported, by the ``model_type`` of their ``config.json``."""
