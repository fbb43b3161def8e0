"""Choose a checkpoint's files of weights, among those of a folder or of a Hub repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path, PureWindowsPath

from zsic_index.errors import ModelError

INDEX_SUFFIX = ".index.json"
"""End of the name of a file that lists the parts of weights."""


def choose_weights(
    candidates: Iterable[str],
    exists: Callable[[str], bool],
    locate: Callable[[str], Path],
) -> tuple[tuple[str, ...], list[str]]:
    """Choose the first complete weights of a checkpoint.

    Args:
        candidates: names of files of weights, or of indexes of weights in several parts, in order
            of preference.
        exists: function that tells whether there is a file of that name.
        locate: function that returns the path of an index.

    Returns:
        The names of the files with tensors, and the names of the parts that incomplete weights
        lack; the first is empty if no weights are complete.

    Raises:
        ModelError: when an index cannot be read, or names a part outside of its folder.
    """
    lacking: list[str] = []
    for name in filter(exists, candidates):
        if not name.endswith(INDEX_SUFFIX):
            return (name,), []
        parts = _read_parts(locate(name))
        absent = [part for part in parts if not exists(part)]
        if not absent:
            return parts, []
        lacking += absent
    return (), lacking


def find_weights(folder: Path, candidates: Iterable[str]) -> tuple[tuple[Path, ...], list[str]]:
    """Choose the first complete weights in a folder; see ``choose_weights``."""
    names, lacking = choose_weights(
        candidates,
        exists=lambda name: (folder / name).is_file(),
        locate=lambda name: folder / name,
    )
    return tuple(folder / name for name in names), lacking


def _read_parts(path: Path) -> tuple[str, ...]:
    """Return the names of the files that an index of weights lists."""
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        parts = tuple(sorted({str(part) for part in weight_map.values()}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no index of weights ({error!r}): fetch it again") from error
    for part in parts:
        # Windows' rules find drives and backslashes too.
        pure = PureWindowsPath(part)
        if pure.anchor or ".." in pure.parts:
            raise ModelError(
                f"{path} names {part!r}, outside of its folder: take another checkpoint"
            )
    return parts
