"""Image processors of transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor

from zsic_index.encoders.base import Pixels


class ImageProcessor:
    """An image processor of transformers, one image at a time, as in its pipeline.

    Args:
        processor: image processor.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    @classmethod
    def load(cls, folder: Path) -> ImageProcessor:
        """Load the image processor of a checkpoint's folder, offline, without running its code.

        Raises:
            Exception: of any kind, when transformers cannot load it.
        """
        processor: Any = AutoImageProcessor
        return cls(
            processor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        )

    def __call__(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into inputs of the vision tower."""
        inputs = self._processor(images=[image], return_tensors="np")
        return {name: values[0] for name, values in inputs.items()}

    @property
    def image_size(self) -> int:
        """Longest side that an image is scaled or cut to, in pixels."""
        processor = self._processor
        if hasattr(processor, "max_num_patches"):  # keeps the aspect ratio within that many patches
            side: float = processor.patch_size * math.sqrt(processor.max_num_patches)
            return math.ceil(side)
        sides = [dict(getattr(processor, name, None) or {}) for name in ("size", "crop_size")]
        return max(int(side) for by_name in sides for side in by_name.values() if side)
