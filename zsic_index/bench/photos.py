"""Random JPEG files for timing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_CELL = 32
"""Side in pixels of the squares whose random colours a photo blends."""


def write_photos(folder: Path, count: int, size: tuple[int, int] = (640, 480)) -> list[Path]:
    """Write random JPEG files to a new folder and return their paths.

    Args:
        folder: folder that is made.
        count: number of files.
        size: width and height in pixels, multiples of 32.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        small = rng.integers(0, 256, (size[1] // _CELL, size[0] // _CELL, 3), dtype=np.uint8)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return paths
