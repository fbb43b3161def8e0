"""Arguments of LabelIndex, checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np

from zsic_index import builtin, taxonomy
from zsic_index.encoders import Checkpoint
from zsic_index.errors import InputError
from zsic_index.records import (
    Activation,
)
from zsic_index.taxonomy import Taxonomy

Choice = TypeVar("Choice", bound=str)

MAX_NAME_LENGTH = 64


def checked_choice(value: Choice, choices: object, name: str) -> Choice:
    """Return ``value`` if it is one of a Literal's, or raise an InputError that names them."""
    if value not in get_args(choices):
        raise InputError(f"{name} {value!r}: use one of {', '.join(get_args(choices))}")
    return value


def read_taxonomy(labels: str | Path | Iterable[str] | Taxonomy) -> Taxonomy:
    """Return the taxonomy of a label file, a built-in one, or labels in memory."""
    if isinstance(labels, Taxonomy):
        return labels
    if isinstance(labels, str) and labels in builtin.LABEL_FILES:
        return taxonomy.read(builtin.label_file(labels))
    if isinstance(labels, (str, Path)):
        return taxonomy.read(labels)
    return taxonomy.collect(labels)


def imported_fingerprint(
    checkpoint: Checkpoint | None, dim: int, scale: float, bias: float, activation: Activation
) -> str:
    """Return the encoder fingerprint of imported embeddings."""
    parts = ["imported", checkpoint and checkpoint.fingerprint, dim, scale, bias, activation]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_top_k(top_k: object) -> None:
    """Raise an InputError unless ``top_k`` is a whole number of at least 1."""
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise InputError(f"top_k is {top_k!r}; it must be a whole number of at least 1")


def check_logit_numbers(logit_scale: float, logit_bias: float, activation: Activation) -> None:
    """Raise an InputError for a scale, bias or activation that cannot turn into probabilities."""
    if not (np.isfinite(logit_scale) and logit_scale > 0 and np.isfinite(logit_bias)):
        raise InputError(
            f"logit_scale {logit_scale} and logit_bias {logit_bias} must be finite, "
            "the scale above 0 (it is the multiplier itself, already exponentiated)"
        )
    checked_choice(activation, Activation, "activation")


def check_name(name: str) -> str:
    """Return an index's name, or raise an InputError: it becomes part of a file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or len(name) > MAX_NAME_LENGTH:
        raise InputError(
            f"index name {name!r}: use up to {MAX_NAME_LENGTH} letters, digits, '-', '_' and '.', "
            "a letter or digit first"
        )
    return name
