from __future__ import annotations

import numpy as np
import pytest

from zsic_index.embedding_arrays import check_embeddings
from zsic_index.errors import EmbeddingError
from zsic_index.scan.probabilities import activate, log_sum_exp


def test_softmax_and_sigmoid_at_the_ends() -> None:
    logits = np.array([[800.0, 0.0, -800.0]])
    assert activate(logits, "sigmoid", None).tolist() == [[1.0, 0.5, 0.0]]
    partition = log_sum_exp(logits)
    np.testing.assert_allclose(
        activate(logits, "softmax", partition), [[1.0, 0.0, 0.0]], atol=1e-15
    )


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 3), dtype=np.int64),
        np.ones((2, 2, 2)),
        np.zeros((1, 3)),
        np.array([[1.0, np.nan, 0.0]]),
        np.array([[1.0, np.inf, 0.0]]),
        np.array([["a", "b"]]),
        np.ones((2, 0)),
    ],
)
def test_embeddings_that_are_none(array: np.ndarray) -> None:
    with pytest.raises(EmbeddingError):
        check_embeddings(array)


def test_embeddings_of_another_dimension() -> None:
    with pytest.raises(EmbeddingError, match=r"4 dimensions.*3"):
        check_embeddings(np.ones((2, 4)), 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_embeddings_are_normalised(dtype: str) -> None:
    unit = check_embeddings(np.full((2, 4), 3, dtype=dtype))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, 0.5)


def test_one_embedding_is_a_batch_of_one() -> None:
    assert check_embeddings(np.ones(4)).shape == (1, 4)
