"""Right labels of images."""

from __future__ import annotations

import numpy as np
import pytest

from zsic_index.calibration.truth import Truth
from zsic_index.errors import InputError


def test_truth_is_in_order_and_without_repeats() -> None:
    truth = Truth.of(3, 10, [2, 0, 2, 0], [5, 9, 5, 1])
    assert truth.image.tolist() == [0, 0, 2]
    assert truth.label.tolist() == [1, 9, 5]
    rows = np.array([[9, 0, 1], [1, 9, 5], [4, 5, 6]])
    assert truth.contains(rows).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert not Truth.of(3, 10, [], []).contains(rows).any()


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [([0, 3], [0, 0], "image row 3"), ([0], [-1], "label row -1"), ([0], [0, 1], "pairs"),
     ([[0]], [0], "shape")],
)  # fmt: skip
def test_truth_refuses(image: list[int], label: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Truth.of(3, 10, image, label)
