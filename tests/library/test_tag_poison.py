"""A library with bad files in it: all are accounted for, and the others take no longer."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.libraries import build, tag


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


BOMB = _png(Image.new("1", (20_000, 20_000)))
THIN = _png(Image.new("RGB", (3_000, 1)))


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda good: good[: len(good) // 2],
    "head only": lambda good: good[:20],
    "empty": lambda good: b"",
    "bomb": lambda good: BOMB,
    "thin": lambda good: THIN,
    "EPS": lambda good: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" * 9,
    "FITS": lambda good: b"SIMPLE  =                    T".ljust(2880),
    "PDF": lambda good: b"%PDF-1.7\n" * 50,
    "text": lambda good: b"not a picture\n" * 99,
    "zeros": lambda good: bytes(len(good)),
}
"""What a bad file has in it, from what a good one has."""

POISONS = (*CONTENTS, "pipe", "link to nothing")
"""A link to nothing is skipped, the rest are refused."""


def library(root: Path, photos: int) -> list[Path]:
    """Make photos of noise, each another."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(photos):
        path = root / f"{number // 500:03}" / f"IMG_{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=85)
        paths.append(path)
    return paths


def poison(paths: list[Path]) -> dict[Path, str]:
    """Spoil files in turns; return what was done to each."""
    done = dict(zip(paths, cycle(POISONS), strict=False))
    for path, name in done.items():
        good = path.read_bytes()
        path.unlink()
        if name == "pipe":
            os.mkfifo(path)
        elif name == "link to nothing":
            path.symlink_to("nothing.jpg")
        else:
            path.write_bytes(CONTENTS[name](good))
    return done


def test_every_poison_is_named(tmp_path: Path) -> None:
    build(tmp_path)
    root = tmp_path / "photos"
    paths = library(root, 40)
    done = poison(paths[:36:3])
    ran = tag(root)
    links = sum(name == "link to nothing" for name in done.values())
    assert ran.counts["done"] == 40 - len(done)
    assert (ran.counts["skipped"], ran.counts["refused"]) == (links, len(done) - links)
    named = {path for path in paths for line in ran.report.problems if line.startswith(str(path))}
    assert named == set(done)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_percent_of_ten_thousand(tmp_path: Path, store: Path) -> None:
    """Take turns over the clean and the poisoned library, each with a store without embeddings."""
    build(tmp_path)
    clean = library(tmp_path / "clean", 10_000)
    bad = poison(library(tmp_path / "bad", 10_000)[::100])
    assert len(bad) == 100
    empty = store.read_bytes()
    rates: dict[str, list[float]] = {"clean": [], "bad": []}
    for _ in range(3):
        for name, taken in rates.items():
            store.write_bytes(empty)
            started = time.perf_counter()
            ran = tag(tmp_path / name)
            taken.append(len(clean) / (time.perf_counter() - started))
            assert ran.counts["inputs"] == len(clean)
            assert ran.counts["refused"] + ran.counts["skipped"] == (
                len(bad) if name == "bad" else 0
            )
    print({name: [round(rate) for rate in taken] for name, taken in rates.items()}, "photos/s")
    assert max(rates["bad"]) >= 0.95 * max(rates["clean"])
