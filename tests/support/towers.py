"""Encoders with random weights and vision towers of published sizes, and JPEG files for them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from tests.support import models
from zsic_index import builtin
from zsic_index.encoders.transformers.encoder import TransformersEncoder


def encode_jpegs(count: int) -> list[bytes]:
    """Return the bytes of JPEG files of 640 x 480 pixels."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(min(count, 64)):
        field_of_colours = rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        file = io.BytesIO()
        image = Image.fromarray(field_of_colours).resize((640, 480), Image.Resampling.BICUBIC)
        image.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return [files[number % len(files)] for number in range(count)]


def tower_configs(*, small: bool) -> dict[str, Any]:
    """Return configurations of published sizes, with a small text tower; or tiny ones."""
    if small:
        return {"tiny": _clip_config(models.TOWER | {"image_size": 32, "patch_size": 8})}
    base = {"hidden_size": 768, "intermediate_size": 3_072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "image_size": 224}  # fmt: skip
    large = {"hidden_size": 1_024, "intermediate_size": 4_096, "num_hidden_layers": 24,
             "num_attention_heads": 16, "image_size": 224}  # fmt: skip
    return {
        "ViT-B/32": _clip_config(base | {"patch_size": 32}),
        "ViT-B/16": _clip_config(base | {"patch_size": 16}),
        "ViT-L/14": _clip_config(large | {"patch_size": 14}),
        "SigLIP 2 B/16": transformers.SiglipConfig(
            text_config=models.TOWER, vision_config=base | {"patch_size": 16}
        ),
    }


def _clip_config(vision: dict[str, Any]) -> transformers.CLIPConfig:
    return transformers.CLIPConfig(text_config=models.TOWER, vision_config=vision)


def random_encoder(config: Any, device: str, dtype: str) -> TransformersEncoder:
    """Return an encoder with random weights, made on the device."""
    is_clip = config.model_type == "clip"
    kind = transformers.CLIPModel if is_clip else transformers.SiglipModel
    processor = transformers.CLIPImageProcessor if is_clip else transformers.SiglipImageProcessor
    side = config.vision_config.image_size
    size = {"shortest_edge": side} if is_clip else {"height": side, "width": side}
    with torch.device(device):
        model = kind(config).to(getattr(torch, dtype)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(builtin.model_path("builtin:clip"))
    crop = {"crop_size": {"height": side, "width": side}} if is_clip else {}
    return TransformersEncoder.of(model, tokenizer, processor(size=size, **crop))
