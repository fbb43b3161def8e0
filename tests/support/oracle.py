"""Reference values in float64, computed in full from their definitions.

Nothing here uses the package: embeddings go in as plain arrays, and every similarity, logit and
probability is written out as a matrix. Shapes: (B, ...) for B queries, R names, N labels, M nodes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def normalised(rows: Float64) -> NDArray[np.float32]:
    """Return (R, D) rows scaled to length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def unit_rows(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float32]:
    """Return (R, D) random rows of length 1."""
    return normalised(rng.standard_normal((rows, dim)))


def similarities(queries: ArrayLike, rows: ArrayLike) -> Float64:
    """Return (B, R) inner products, summed in one order whatever the shapes."""
    left, right = np.asarray(queries, np.float64), np.asarray(rows, np.float64)
    return np.einsum("bd,rd->br", left, right)


def pooled(
    of_names: Float64, names: Sequence[Collection[int]], pooling: str, scale: float
) -> Float64:
    """Return (B, N) similarities of labels from (B, R) of names.

    ``names`` has the columns of each label. By ``max``, a label is as similar as its best name; by
    ``mass``, its weight at a scale is the sum of its names' weights.
    """
    labels = []
    for columns in names:
        own = of_names[:, list(columns)]
        if pooling == "max":
            labels.append(own.max(axis=1))
        else:
            labels.append(log_sum_exp(scale * own) / scale)
    return np.stack(labels, axis=1)


def log_sum_exp(logits: Float64) -> Float64:
    """Return (B,) logarithms of the sums of exponentials; -inf stands for a label left out."""
    top = logits.max(axis=1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))


def softmax(logits: Float64) -> Float64:
    """Return (B, N) probabilities that add up to 1."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def sigmoid(logits: Float64) -> Float64:
    """Return (B, N) probabilities, each for itself."""
    return np.exp(-np.logaddexp(0, -logits))


def probabilities(logits: Float64, activation: str) -> Float64:
    """Return (B, N) probabilities of an activation, ``softmax`` or ``sigmoid``."""
    return {"softmax": softmax, "sigmoid": sigmoid}[activation](logits)


def best(values: Float64, top_k: int) -> NDArray[np.int64]:
    """Return (B, K) columns by value, largest first; of equal ones the first comes first."""
    return np.argsort(-values, axis=1, kind="stable")[:, :top_k]


def at(values: Float64, columns: NDArray[Any]) -> Float64:
    """Return (B, K) values at each query's own columns."""
    return np.take_along_axis(values, columns, axis=1)


def of_nodes(
    of_labels: Float64,
    below: Sequence[Collection[int]],
    how: Literal["mass", "max", "noisy-or"] = "mass",
) -> Float64:
    """Return (B, M) probabilities of nodes from (B, N) of labels, node by node.

    ``below`` has the labels at or below each node.
    """
    nodes = np.zeros((len(of_labels), len(below)))
    for query, line in enumerate(of_labels.tolist()):
        for node, labels in enumerate(below):
            own = [line[label] for label in labels]
            match how:
                case "mass":
                    nodes[query, node] = math.fsum(own)
                case "max":
                    nodes[query, node] = max(own, default=0.0)
                case "noisy-or":
                    nodes[query, node] = 1 - math.prod(1 - probability for probability in own)
    return nodes


def softmax_loss(logits: Float64, targets: ArrayLike) -> float:
    """Return the mean negative log likelihood of each query's right label."""
    own = logits[np.arange(len(logits)), targets]
    return float((log_sum_exp(logits) - own).mean())


def sigmoid_loss(logits: Float64, right: NDArray[np.bool_]) -> float:
    """Return the negative log likelihood of (B, N) right and wrong pairs, per query."""
    return float(np.logaddexp(0, np.where(right, -logits, logits)).sum() / len(logits))
