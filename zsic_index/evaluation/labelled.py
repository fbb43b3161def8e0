"""Reading labelled images: a folder per label, or a table of path and label."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import InputError
from zsic_index.formats.tables import TableRow, read_rows
from zsic_index.images.opening import SUFFIXES

SEPARATOR = "|"
"""Stands between several labels of one image in a table."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image and what is right for it.

    Attributes:
        path: its file.
        labels: right labels, at least one, as they are written.
    """

    path: Path
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled images, and what was left out.

    ``entries == len(images) + repeated + len(missing) + unlabelled + ignored``.

    Attributes:
        images: in the order of the table, or of their paths.
        entries: rows of the table, or files below the folder.
        repeated: rows whose image another row had named; their labels are added to that one's.
        missing: images of rows for which there is no file, once per row.
        unlabelled: images that lie in the folder itself, under no label.
        ignored: files that are no images, or hidden.
    """

    images: tuple[LabelledImage, ...]
    entries: int
    repeated: int = 0
    missing: tuple[Path, ...] = ()
    unlabelled: int = 0
    ignored: int = 0


def read_labelled(path: str | Path) -> Labelled:
    """Read labelled images.

    - A folder: the label of an image is the name of the folder it lies in, however deep; so
      ``Aves/Corvidae/Pica pica/1.jpg`` is a ``Pica pica``. Links to folders are not followed.
    - A ``.csv``, ``.tsv`` or ``.json`` table with the columns ``path`` and ``label``. Paths are
      relative to the table; several labels have ``|`` between them, or a row each.

    Raises:
        InputError: when it cannot be read, a row lacks a value, or there is no image at all; it
            names the line.
    """
    path = Path(path)
    found = _read_folder(path) if path.is_dir() else _read_table(path)
    if not found.images:
        gone = f"; {len(found.missing)} files are missing" if found.missing else ""
        raise InputError(
            f"{path}: no labelled images in it{gone}: give a folder of folders that are named "
            "after labels, or a table with the columns path and label"
        )
    return found


def _read_folder(root: Path) -> Labelled:
    images: list[LabelledImage] = []
    unlabelled = ignored = 0

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror or error}") from error

    for folder, below, files in os.walk(root, onerror=refuse):
        below.sort()
        here = Path(folder)
        hidden = any(part.startswith(".") for part in here.relative_to(root).parts)
        for name in sorted(files):
            if hidden or name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                ignored += 1
            elif here == root:
                unlabelled += 1
            else:
                images.append(LabelledImage(here / name, (here.name,)))
    return Labelled(
        tuple(images),
        len(images) + unlabelled + ignored,
        unlabelled=unlabelled,
        ignored=ignored,
    )


def _read_table(path: Path) -> Labelled:
    labels: dict[Path, dict[str, None]] = {}
    missing: list[Path] = []
    entries = repeated = 0
    for row in read_rows(path, ("path", "label")):
        entries += 1
        image, own = _image_of(row, path.parent), _labels_of(row)
        if image in labels:
            repeated += 1
        elif not image.is_file():
            missing.append(image)
            continue
        labels.setdefault(image, {}).update(dict.fromkeys(own))
    images = tuple(LabelledImage(image, tuple(own)) for image, own in labels.items())
    return Labelled(images, entries, repeated=repeated, missing=tuple(missing))


def _image_of(row: TableRow, folder: Path) -> Path:
    written = row.values.get("path")
    if not written or "\0" in written:
        raise InputError(f"{row.place}: the path is empty or holds a NUL: give the image's file")
    return folder / written


def _labels_of(row: TableRow) -> list[str]:
    found = [label.strip() for label in row.values.get("label", "").split(SEPARATOR)]
    if not all(found):
        raise InputError(
            f"{row.place}: a label is empty: name at least one, with {SEPARATOR!r} between several"
        )
    return found
