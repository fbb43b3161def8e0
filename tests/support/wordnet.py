"""WordNet's nouns as a taxonomy: ``python -m tests.support.wordnet data.noun nouns.jsonl``.

The file ``data.noun`` comes with WordNet (on Debian in the package ``wordnet-base``); it is not
part of this project. Tests look for it where Debian puts it, or where ``WORDNET_NOUNS`` says.

A synset is a label: its offset is the id, its first lemma the name, its other lemmas are aliases,
and its hypernyms, those of instances too, are its parents.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("WORDNET_NOUNS", "/usr/share/wordnet/data.noun"))


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield one object a synset, as ``taxonomy.read`` takes them from JSONL."""
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("  "):  # the licence
            continue
        words = line.split(" | ", 1)[0].split(" ")
        count = int(words[3], 16)
        lemmas = [word.replace("_", " ") for word in words[4 : 4 + 2 * count : 2]]
        pointers = words[5 + 2 * count :]
        links = zip(pointers[::4], pointers[1::4], pointers[2::4], strict=False)
        yield {
            "id": words[0],
            "label": lemmas[0],
            "aliases": lemmas[1:],
            "parent": [offset for kind, offset, pos in links if kind in ("@", "@i") and pos == "n"],
        }


def write_jsonl(path: Path, target: Path) -> Path:
    """Write the nouns of ``data.noun`` as JSONL, and return where."""
    with target.open("w", encoding="utf-8", newline="\n") as file:
        for entry in entries(path):
            file.write(json.dumps(entry) + "\n")
    return target


if __name__ == "__main__":
    print(write_jsonl(Path(sys.argv[1]), Path(sys.argv[2])))
