"""Drawings, rendered once to small RGBA arrays and cached in files."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import resvg_py
from PIL import Image

from zsic_index.builtin.train import samples
from zsic_index.builtin.train.concepts import Concept
from zsic_index.builtin.train.sets import SETS, Icons

SIDE = 80  # larger than the models' 64, so that a shifted and turned drawing stays sharp


@dataclass(frozen=True)
class Drawings:
    """All rendered drawings.

    Attributes:
        pixels: (n, 4, 80, 80) uint8, RGBA with straight alpha.
        concept: (n,) int64, position in the list of concepts.
        drawing_set: (n,) int64, position in ``SETS``.
        barred: (n,) bool, drawings kept out of training because a sample image is like them.
        sample: sample label → name of the set that draws it.
    """

    pixels: npt.NDArray[np.uint8]
    concept: npt.NDArray[np.int64]
    drawing_set: npt.NDArray[np.int64]
    barred: npt.NDArray[np.bool_]
    sample: dict[str, str]

    def of_sets(self, *names: str) -> npt.NDArray[np.bool_]:
        """Return a mask of the drawings of the named sets, (n,) bool."""
        positions = [index for index, item in enumerate(SETS) if item.name in names]
        return np.isin(self.drawing_set, positions)

    def training(self, concepts: list[Concept]) -> npt.NDArray[np.bool_]:
        """Return a mask of the drawings that may be trained on, (n,) bool."""
        seen = np.array([concept.trained for concept in concepts])
        allowed = self.of_sets(*(item.name for item in SETS if item.role == "train"))
        mask: npt.NDArray[np.bool_] = seen[self.concept] & allowed & ~self.barred
        return mask


def render(svg: str, side: int) -> Image.Image:
    """Render an SVG document to an RGBA image, centred on a transparent square."""
    png = resvg_py.svg_to_bytes(svg_string=svg, height=side, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if image.size == (side, side):
        return image
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def build(cache: Path, concepts: list[Concept]) -> Drawings:
    """Render the drawings of all sets and store them in ``cache``."""
    order = {concept.id: index for index, concept in enumerate(concepts)}
    labels = {concept.id: concept.label for concept in concepts}
    arrays: list[npt.NDArray[np.uint8]] = []
    rows: list[tuple[int, int]] = []
    available: dict[str, set[str]] = defaultdict(set)
    for index, drawing_set in enumerate(SETS):
        icons = Icons(cache, drawing_set)
        matched = icons.match(concepts)
        kept = 0
        for code, name in matched.items():
            array = np.asarray(render(icons.svg(name), SIDE))
            if int(array[..., 3].max()) < 128:  # skip empty drawings
                continue
            arrays.append(np.ascontiguousarray(array.transpose(2, 0, 1)))
            rows.append((order[code], index))
            available[labels[code]].add(drawing_set.name)
            kept += 1
        click.echo(f"{drawing_set.name}: {kept} drawings")
    chosen = samples.assign(available)
    barred_pairs = samples.find_barred(chosen)
    barred = [(concepts[row].label, SETS[index].name) in barred_pairs for row, index in rows]
    np.save(cache / "pixels.npy", np.stack(arrays))
    np.savez(cache / "drawings.npz", rows=np.array(rows), barred=np.array(barred))
    (cache / "samples.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")
    return load(cache)


def load(cache: Path) -> Drawings:
    """Read the drawings that ``build`` has stored."""
    if not (cache / "samples.json").exists():
        raise click.ClickException(f"no drawings under {cache}; run the `data` command first")
    table = np.load(cache / "drawings.npz")
    return Drawings(
        pixels=np.load(cache / "pixels.npy"),
        concept=table["rows"][:, 0].astype(np.int64),
        drawing_set=table["rows"][:, 1].astype(np.int64),
        barred=table["barred"],
        sample=json.loads((cache / "samples.json").read_text(encoding="utf-8")),
    )
