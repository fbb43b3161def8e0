"""Read lists of images with labels (folders, a table) and without (a folder, a list)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zsic_index.errors import InputError
from zsic_index.formats.tables import TableRow, read_table_rows, read_text
from zsic_index.images.opening import SUFFIXES, list_image_files

SEPARATOR = "|"
"""Separates several labels of one image in a table."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image file and its correct labels.

    Attributes:
        path: the file.
        labels: at least one correct label, as written in the source.
    """

    path: Path
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Labelled images, and how many entries of their source were left out.

    ``entries == len(images) + repeated + len(missing) + unlabelled + ignored``.

    Attributes:
        images: in the order of the table, or sorted by path.
        entries: rows of the table, or files below the folder.
        repeated: rows that name an image of an earlier row; their labels are added to that image.
        missing: image paths without a file, one for each such row.
        unlabelled: images directly in the folder, so without a label.
        ignored: hidden files, and files that are not images.
    """

    images: tuple[LabelledImage, ...]
    entries: int
    repeated: int = 0
    missing: tuple[Path, ...] = ()
    unlabelled: int = 0
    ignored: int = 0


def read_labelled(path: str | Path) -> LabelledImages:
    """Read labelled images from a folder or a table.

    - A folder: an image's label is the name of the folder that holds it, at any depth: the label of
      ``Aves/Corvidae/Pica pica/1.jpg`` is ``Pica pica``. Links to folders are not followed.
    - A ``.csv``, ``.tsv`` or ``.json`` table with the columns ``path`` and ``label``. Paths are
      relative to the table; several labels are separated by ``|``, or have a row each.

    Raises:
        InputError: when it cannot be read, a row lacks a value, or there is no image at all; the
            message names the line.
    """
    path = Path(path)
    labelled = _read_folder(path) if path.is_dir() else _read_table(path)
    if not labelled.images:
        missing = f"; {len(labelled.missing)} files are missing" if labelled.missing else ""
        raise InputError(
            f"{path}: no labelled images in it{missing}: give a folder of folders that are named "
            "after labels, or a table with the columns path and label"
        )
    return labelled


def read_unlabelled(path: str | Path) -> list[Path]:
    """Return image files, without duplicates, in the order of the list or sorted by path.

    - A folder: all images in it and in its subfolders, whose names are ignored.
    - A ``.txt`` with a path on each line, or a ``.csv``, ``.tsv`` or ``.json`` table with the
      column ``path``. Paths are relative to the file.

    Raises:
        InputError: when it cannot be read, or there is no image in it.
    """
    path = Path(path)
    if path.is_dir():
        images = list_image_files(path)
    elif path.suffix.lower() == ".txt":
        images = [path.parent / line for line in _read_lines(path)]
    else:
        rows = read_table_rows(path, ("path",))
        images = [path.parent / row.values["path"] for row in rows if "path" in row.values]
    if not images:
        raise InputError(
            f"{path}: no images in it: give a folder of images, a .txt with a path on each line, "
            "or a table with the column path"
        )
    return list(dict.fromkeys(images))


def _read_folder(root: Path) -> LabelledImages:
    images: list[LabelledImage] = []
    unlabelled = ignored = 0

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror or error}") from error

    for directory, subdirectories, files in os.walk(root, onerror=refuse):
        subdirectories.sort()
        folder = Path(directory)
        hidden = any(part.startswith(".") for part in folder.relative_to(root).parts)
        for name in sorted(files):
            if hidden or name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                ignored += 1
            elif folder == root:
                unlabelled += 1
            else:
                images.append(LabelledImage(folder / name, (folder.name,)))
    return LabelledImages(
        tuple(images),
        len(images) + unlabelled + ignored,
        unlabelled=unlabelled,
        ignored=ignored,
    )


def _read_table(path: Path) -> LabelledImages:
    labels_of: dict[Path, dict[str, None]] = {}
    missing: list[Path] = []
    entries = repeated = 0
    for row in read_table_rows(path, ("path", "label")):
        entries += 1
        image, labels = _image_of(row, path.parent), _labels_of(row)
        if image in labels_of:
            repeated += 1
        elif not image.is_file():
            missing.append(image)
            continue
        labels_of.setdefault(image, {}).update(dict.fromkeys(labels))
    images = tuple(LabelledImage(image, tuple(labels)) for image, labels in labels_of.items())
    return LabelledImages(images, entries, repeated=repeated, missing=tuple(missing))


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, stripped, without empty ones."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _image_of(row: TableRow, folder: Path) -> Path:
    path = row.values.get("path")
    if not path or "\0" in path:
        raise InputError(f"{row.place}: the path is empty or holds a NUL: give the image's file")
    return folder / path


def _labels_of(row: TableRow) -> list[str]:
    labels = [label.strip() for label in row.values.get("label", "").split(SEPARATOR)]
    if not all(labels):
        raise InputError(
            f"{row.place}: a label is empty: name at least one, with {SEPARATOR!r} between several"
        )
    return labels
