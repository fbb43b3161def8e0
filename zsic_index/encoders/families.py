"""The supported families of transformers checkpoints, as data.

To add a family of transformers' zero-shot image classification models with two towers:

1. Add its ``model_type`` (from ``config.json``) to FAMILIES. If the family differs from CLIP in a
   way that no field of Family describes, add a field and use it in
   ``transformers/encoder.py``, where all fields but ``image_processor`` are read.
2. Write a function that makes a small random checkpoint, and add it to ``MAKERS`` in
   ``tests/support/models.py``: the conformance suite (``tests/encoders``) and the parity matrix
   (``tests/tools/parity.py``) then run on it. A test fails while a family has none.

Checkpoints of open_clip need no entry: open_clip itself describes them. Another format of
checkpoints is another package beside ``open_clip/`` and ``transformers/``, which ``resolve`` and
``load`` in ``encoders/__init__.py`` choose between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zsic_index.errors import ModelError
from zsic_index.records import Activation


@dataclass(frozen=True, slots=True)
class Family:
    """Differences between checkpoints of one ``model_type`` and CLIP.

    Attributes:
        activation: function from logits to probabilities.
        text_length: length to which every prompt is padded; None if padding does not change the
            output, because a causal tower reads it at the end-of-text token, or a mask hides it.
        divides_by_temperature: True if logits are similarities divided by ``model.temperature``,
            not multiplied by the exponential of ``model.logit_scale``.
        positions_follow_padding: True if positions are numbered from the padding token's id on, as
            in RoBERTa, so that fewer tokens fit than there are positions.
        image_processor: class of transformers that preprocesses images of a checkpoint whose
            configuration names none; ``image_transform.py`` has the options of each.
        has_fixed_input: True if the vision tower takes pixels of one size and nothing else, so that
            it can be exported to ONNX.
    """

    activation: Activation = "softmax"
    text_length: int | None = None
    divides_by_temperature: bool = False
    positions_follow_padding: bool = False
    image_processor: str = "CLIPImageProcessor"
    has_fixed_input: bool = True


# SigLIP's text tower is bidirectional and has no mask, so padding changes its output. The pipeline
# always pads to 64, whatever the checkpoint's configuration says.
_SIGLIP = Family(activation="sigmoid", text_length=64, image_processor="SiglipImageProcessor")

FAMILIES: dict[str, Family] = {
    "align": Family(divides_by_temperature=True, image_processor="EfficientNetImageProcessor"),
    "altclip": Family(positions_follow_padding=True),
    "blip": Family(image_processor="BlipImageProcessor"),
    "chinese_clip": Family(image_processor="ChineseCLIPImageProcessor"),
    "clip": Family(),
    "metaclip_2": Family(),
    "siglip": _SIGLIP,
    "siglip2": replace(_SIGLIP, image_processor="Siglip2ImageProcessor", has_fixed_input=False),
}
"""The supported families, by the ``model_type`` of their ``config.json``."""


def find_family(model_type: str, model_id: str) -> Family:
    """Return the family of a ``model_type``.

    Raises:
        ModelError: when it is not supported; the message names ``model_id`` and all of FAMILIES.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"model {model_id}: its model_type {model_type!r} is not supported; "
            f"supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]
