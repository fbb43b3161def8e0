"""Classify images with an exported index: python classify.py photo.jpg ...

Needs numpy, onnxruntime and pillow. ``zsic-index onnx export`` puts a copy of this file beside the
files that it reads.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FOLDER = Path(__file__).resolve().parent


def read_pixels(path: str, settings: dict[str, Any], levels: Any) -> Any:
    """Decode, scale, crop and normalise an image to (3, H, W) float32."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if settings["on_white"] and image.info.get("transparency") is not None:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    resize, crop = settings["resize"], settings["crop"]
    if isinstance(resize, int):  # the shorter side; the longer one is rounded down
        short, long = sorted(image.size)
        longer = int(resize * long / short)
        resize = (longer, resize) if image.width <= image.height else (resize, longer)
    if resize is not None:
        image = image.resize((resize[1], resize[0]), settings["resample"])
    if crop is not None:
        left, top = (image.width - crop[1]) // 2, (image.height - crop[0]) // 2
        image = image.crop((left, top, left + crop[1], top + crop[0]))
    bands = np.asarray(image).transpose(2, 0, 1)
    return np.stack([level[band] for level, band in zip(levels, bands, strict=True)])


def main(paths: list[str], top_k: int = 5) -> None:
    """Print the most probable labels of each image."""
    index = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    labels, levels = np.load(FOLDER / "labels.npy"), np.load(FOLDER / "levels.npy")
    tower = onnxruntime.InferenceSession(FOLDER / "model.onnx")
    for path in paths:
        pixels = read_pixels(path, index["image"], levels)
        embedding = tower.run(None, {"pixel_values": pixels[None]})[0][0]
        logits = (labels @ embedding).astype(float) * index["logit_scale"] + index["logit_bias"]
        if index["activation"] == "softmax":
            exponentials = np.exp(logits - logits.max())
            probabilities = exponentials / exponentials.sum()
        else:
            probabilities = 1 / (1 + np.exp(-logits))
        for row in np.argsort(-logits, kind="stable")[:top_k]:
            print(f"{path}\t{index['labels'][row]}\t{probabilities[row]:.6f}")


if __name__ == "__main__":
    main(sys.argv[1:])
