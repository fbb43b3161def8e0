"""Which labels are right for which images, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic_index.embedding_arrays import Bool, Int64
from zsic_index.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Right labels of B images; one image may have several, or none. Make it with ``of``.

    Attributes:
        images: B, the number of images.
        labels: N, the number of labels.
        image: (P,) int64 image of each pair, ascending.
        label: (P,) int64 row of each pair's label, ascending within an image.
    """

    images: int
    labels: int
    image: Int64
    label: Int64

    @classmethod
    def of(cls, images: int, labels: int, image: npt.ArrayLike, label: npt.ArrayLike) -> Truth:
        """Check pairs of (image, label) and put them in order; a repeated pair counts once.

        Args:
            images: B.
            labels: N.
            image: (P,) integers, 0 to B - 1.
            label: (P,) integers, 0 to N - 1.

        Raises:
            InputError: when the shapes differ or a number is out of range.
        """
        first, second = checked_rows(image, images, "image"), checked_rows(label, labels, "label")
        if len(first) != len(second):
            raise InputError(f"{len(first)} images but {len(second)} labels: give pairs")
        keys = np.unique(first * labels + second)
        return cls(images, labels, *np.divmod(keys, max(labels, 1)))

    def contains(self, rows: Int64) -> Bool:
        """Tell which of (B, k) rows are right for their image: (B, k) bool."""
        own = self.image * self.labels + self.label
        asked = np.arange(self.images)[:, None] * self.labels + rows
        if not len(own):
            return np.zeros(asked.shape, dtype=np.bool_)
        at = np.minimum(np.searchsorted(own, asked), len(own) - 1)
        return np.asarray(own[at] == asked)


def checked_rows(rows: npt.ArrayLike, limit: int, what: str) -> Int64:
    """Return (P,) int64 rows, all of them from 0 to ``limit`` - 1.

    Raises:
        InputError: for another shape or dtype, or a number out of range.
    """
    array = np.asarray(rows)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InputError(
            f"{what} rows have shape {array.shape} and dtype {array.dtype}; give (P,) integers"
        )
    array = array.astype(np.int64)
    bad = array[(array < 0) | (array >= limit)]
    if len(bad):
        raise InputError(f"{what} row {bad[0]} is out of range; there are {limit:,}")
    return array
