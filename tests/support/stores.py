"""Stores that many tests start from: built once a session, then only read or copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import libraries, services
from zsic_index import LabelIndex, builtin, taxonomy
from zsic_index.store import Store

FILE = "store.db"


def build_library(folder: Path) -> None:
    """Build the index ``things``, and keep the embeddings that most tests of libraries need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSIC_STORE", str(folder / FILE))
        libraries.build(folder, libraries.OTHER_TAXONOMY, name="others")
        libraries.build(folder)
        with Store.open() as store:
            store.indexes.remove("others")
        photos = libraries.put(folder / "photos", *libraries.SAMPLES)
        for number in range(1, 40):
            photos += libraries.put(folder / "photos", "pizza", "dog-face", variant=number)
        with LabelIndex.open("things", keep_images=True, decode="scaled") as index:
            index.embed(photos)
    shutil.rmtree(folder / "photos")


def build_emoji(folder: Path, model: str) -> None:
    """Build the index ``emoji`` of all emoji concepts, below their groups and subgroups."""
    emoji = taxonomy.read(builtin.emoji_labels(), ranks=("group", "subgroup"))
    LabelIndex.build(emoji, model=model, name="emoji", store=folder / FILE).close()


def build_empty(folder: Path) -> None:
    """Make a store with nothing but its tables in it."""
    Store.upgrade(folder / FILE)


def build_onnx(folder: Path) -> None:
    """Build the index ``things`` of builtin:clip, with an ONNX tower."""
    words = ("dog face", "pizza", "rocket", "key", "umbrella", "red apple")
    LabelIndex.build(
        words, model="builtin:clip", name="things", store=folder / FILE, runtime="onnx"
    ).close()


BUILDERS: dict[str, Callable[[Path], object]] = {
    "empty": build_empty,
    "library": build_library,
    "served": services.build_two,
    "onnx": build_onnx,
    "emoji-clip": lambda folder: build_emoji(folder, "builtin:clip"),
    "emoji-siglip": lambda folder: build_emoji(folder, "builtin:siglip"),
}
"""Builders of a store in a folder, by the name that tests ask for."""


def copy_store(source: Path, target: Path) -> Path:
    """Copy a store and its index files; return the copy's path."""
    shutil.copy(source, target)
    if Path(f"{source}.indexes").exists():
        shutil.copytree(f"{source}.indexes", f"{target}.indexes")
    return target
