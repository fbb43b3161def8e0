"""Correct labels of images, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic_index.embedding_arrays import Bool, Int64
from zsic_index.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Correct labels of B images, as (image, label) pairs; built by ``Truth.of``.

    An image may have several correct labels, or none.

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
        """Check and sort (image, label) pairs; a repeated pair counts once.

        Args:
            images: B.
            labels: N.
            image: (P,) integers, 0 to B - 1.
            label: (P,) integers, 0 to N - 1.

        Raises:
            InputError: when the shapes differ or a number is out of range.
        """
        first, second = check_rows(image, images, "image"), check_rows(label, labels, "label")
        if len(first) != len(second):
            raise InputError(f"{len(first)} images but {len(second)} labels: give pairs")
        keys = np.unique(first * labels + second)
        return cls(images, labels, *np.divmod(keys, max(labels, 1)))

    def contains(self, rows: Int64) -> Bool:
        """Tell which of (B, k) rows are correct for their image: (B, k) bool."""
        own = self.image * self.labels + self.label
        keys = np.arange(self.images)[:, None] * self.labels + rows
        if not len(own):
            return np.zeros(keys.shape, dtype=np.bool_)
        at = np.minimum(np.searchsorted(own, keys), len(own) - 1)
        return np.asarray(own[at] == keys)

    def first_labels(self) -> Int64:
        """Return (B,) rows: the first correct label of each image, all of which must have one."""
        starts = np.searchsorted(self.image, np.arange(self.images))
        return self.label[starts]

    def take(self, images: Int64) -> Truth:
        """Return the correct labels of the images at the given positions, in that order."""
        position = np.full(self.images, -1)
        position[images] = np.arange(len(images))
        taken = position[self.image] >= 0
        return Truth.of(len(images), self.labels, position[self.image[taken]], self.label[taken])


def check_rows(rows: npt.ArrayLike, limit: int, what: str) -> Int64:
    """Return (P,) int64 rows after checking that all are from 0 to ``limit`` - 1.

    Raises:
        InputError: for another shape or dtype, or a number out of range; names ``what``.
    """
    array = np.asarray(rows)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InputError(
            f"{what} rows have shape {array.shape} and dtype {array.dtype}; give (P,) integers"
        )
    array = array.astype(np.int64)
    outside = array[(array < 0) | (array >= limit)]
    if len(outside):
        raise InputError(f"{what} row {outside[0]} is out of range; there are {limit:,}")
    return array
