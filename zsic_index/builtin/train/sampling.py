"""Writer of the sample images: each on its own background, as PNG or JPEG."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from zsic_index.builtin.train.concepts import Concept
from zsic_index.builtin.train.drawings import render
from zsic_index.builtin.train.samples import SAMPLE_LABELS
from zsic_index.builtin.train.sets import SETS, Icons

SEED = 40
SIZES = ((128, 128), (160, 160), (200, 160), (192, 192), (160, 200), (256, 256), (320, 256))

Ground = npt.NDArray[np.float64]


def write(cache: Path, folder: Path, concepts: list[Concept], chosen: dict[str, str]) -> None:
    """Write the sample images and ``samples.csv``.

    Args:
        cache: folder with the drawing sets.
        folder: folder to write to; earlier samples in it are deleted.
        concepts: all concepts.
        chosen: sample label → set that its drawing comes from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.png"), *folder.glob("*.jpg")):
        old.unlink()
    by_label = {concept.label: concept for concept in concepts}
    by_name = {item.name: item for item in SETS}
    icons = {name: Icons(cache, by_name[name]) for name in set(chosen.values())}
    matches = {name: item.match(concepts) for name, item in icons.items()}
    rows = []
    for number, label in enumerate(SAMPLE_LABELS):
        name = chosen[label]
        item = by_name[name]
        rng = random.Random(SEED * 1000 + number)
        svg = icons[name].svg(matches[name][by_label[label].id])
        image = compose(svg, SIZES[number % len(SIZES)], number, rng)
        stem = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
        file = f"{number + 1:02d}-{stem}.{'jpg' if number % 2 else 'png'}"
        (folder / file).write_bytes(_encoded(image, jpeg=bool(number % 2)))
        rows.append([file, label, name, item.licence, item.author, item.url])
    with (folder / "samples.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file", "label", "set", "licence", "author", "source"])
        writer.writerows(rows)


def compose(svg: str, size: tuple[int, int], number: int, rng: random.Random) -> Image.Image:
    """Put a drawing on a background, off centre and slightly turned."""
    width, height = size
    side = int(min(size) * rng.uniform(0.68, 0.88))
    drawing = render(svg, side)
    angle = rng.uniform(-8, 8)
    drawing = drawing.rotate(angle, Image.Resampling.BICUBIC)
    ground = _GROUNDS[number % len(_GROUNDS)](width, height, rng)
    canvas = Image.fromarray((ground.clip(0, 1) * 255).round().astype(np.uint8), "RGB")
    if number % 3 == 1:
        canvas = canvas.filter(ImageFilter.GaussianBlur(3))
    left = round((width - side) * rng.uniform(0.25, 0.75))
    top = round((height - side) * rng.uniform(0.25, 0.75))
    canvas.paste(drawing, (left, top), drawing)
    return canvas


def _light(rng: random.Random) -> npt.NDArray[np.float64]:
    """Draw a light colour, (3,), on which black drawings are visible too."""
    return np.array([rng.uniform(0.6, 1.0) for _ in range(3)])


def _white(width: int, height: int, rng: random.Random) -> Ground:
    return np.ones((height, width, 3))


def _plain(width: int, height: int, rng: random.Random) -> Ground:
    return np.broadcast_to(_light(rng), (height, width, 3)).copy()


def _gradient(width: int, height: int, rng: random.Random) -> Ground:
    first, second = _light(rng), _light(rng)
    share = (np.linspace(0, 1, width)[None, :] + np.linspace(0, 1, height)[:, None]) / 2
    return first + (second - first) * share[..., None]


def _stripes(width: int, height: int, rng: random.Random) -> Ground:
    first, second = _light(rng), _light(rng)
    wave = np.sin((np.arange(width)[None, :] + np.arange(height)[:, None]) / rng.uniform(6, 14))
    return np.where(wave[..., None] > 0, first, (first + second) / 2)


def _blotches(width: int, height: int, rng: random.Random) -> Ground:
    cells = np.random.default_rng(rng.randrange(2**31)).integers(130, 256, (5, 5, 3))
    small = Image.fromarray(cells.astype(np.uint8), "RGB")
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255


_GROUNDS: tuple[Callable[[int, int, random.Random], Ground], ...] = (
    _white,
    _plain,
    _gradient,
    _stripes,
    _blotches,
)


def _encoded(image: Image.Image, *, jpeg: bool) -> bytes:
    buffer = io.BytesIO()
    if jpeg:
        image.save(buffer, "JPEG", quality=88)
    else:
        image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
