"""The table of changes in embeddings and answers by scaled JPEG decoding.

    python -m tests.tools.decode_table FOLDER...

Every picture in the folders, and the package's samples, becomes a JPEG of its own size; it is
embedded as it is decoded in full and as it is decoded at its own smaller scale.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from zsic_index import LabelIndex, builtin
from zsic_index.embeddings.images import OVERSAMPLING
from zsic_index.images.opening import SUFFIXES


def as_jpeg(path: Path) -> bytes:
    """Return a picture as a JPEG of its own size."""
    content = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(content, "JPEG", quality=95)
    return content.getvalue()


def scale_of(content: bytes, size: int) -> str:
    """Return the scale at which a JPEG is decoded for a model of that input size."""
    with Image.open(io.BytesIO(content)) as image:
        width = image.width
        image.draft(None, (OVERSAMPLING * size, OVERSAMPLING * size))
        return f"1/{round(width / image.width)}"


def row(index: LabelIndex, other: LabelIndex, contents: list[bytes]) -> list[str]:
    """Return cosine similarities and agreement of two indexes that decode in two ways."""
    exact, scaled = index.embed(contents), other.embed(contents)
    cosines = np.sum(exact.astype(np.float64) * scaled, axis=1)
    first = [index.searcher.best_labels(unit, 1)[0][:, 0] for unit in (exact, scaled)]
    same = int((first[0] == first[1]).sum())
    return [f"{np.median(cosines):.4f}", f"{cosines.min():.4f}", f"{same} of {len(contents)}"]


def main() -> None:
    """Print the table."""
    sets = {"the package's samples": list(builtin.samples())}
    for folder in map(Path, sys.argv[1:]):
        pictures = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
        sets[folder.name] = sorted(pictures)
    print("| model | pictures | scales | median cosine | lowest | same first label |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as room:
        store = f"{room}/store.db"
        for model in builtin.MODELS:
            LabelIndex.build(builtin.emoji_labels(), model=model, name="it", store=store).close()
            index = LabelIndex.open("it", store=store)
            other = LabelIndex.open("it", store=store, decode="scaled")
            size = index.encoder.source.encoder().image_size
            for name, paths in sets.items():
                contents = list(map(as_jpeg, paths))
                counted = Counter(scale_of(content, size) for content in contents)
                scales = ", ".join(f"{number} at {scale}" for scale, number in counted.items())
                print("|", " | ".join([model, name, scales, *row(index, other, contents)]), "|")


if __name__ == "__main__":
    main()
