"""Reading images without labels: a folder, or a list."""

from __future__ import annotations

from pathlib import Path

from zsic_index.errors import InputError
from zsic_index.formats.tables import read_rows, read_text
from zsic_index.images.opening import files_below


def read_unlabelled(path: str | Path) -> list[Path]:
    """Return image files, each once, in the order of the list or of their paths.

    - A folder: all images in it and below; folders mean nothing.
    - A ``.txt`` with a path on each line, or a ``.csv``, ``.tsv`` or ``.json`` table with the
      column ``path``. Paths are relative to the file.

    Raises:
        InputError: when it cannot be read, or there is no image in it.
    """
    path = Path(path)
    if path.is_dir():
        found = files_below(path)
    elif path.suffix.lower() == ".txt":
        found = [path.parent / line for line in _lines(path)]
    else:
        rows = read_rows(path, ("path",))
        found = [path.parent / row.values["path"] for row in rows if "path" in row.values]
    if not found:
        raise InputError(
            f"{path}: no images in it: give a folder of images, a .txt with a path on each line, "
            "or a table with the column path"
        )
    return list(dict.fromkeys(found))


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
