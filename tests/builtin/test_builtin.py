"""What ships inside the package: models, label files and sample images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zsic_index import builtin, taxonomy


@pytest.mark.parametrize("name", builtin.MODELS)
def test_models_have_a_checkpoint(name: str) -> None:
    names = {path.name for path in builtin.model_path(name).iterdir()}
    assert {"config.json", "model.safetensors"} <= names


def test_samples_have_labels_of_the_label_file() -> None:
    labels = builtin.sample_labels()
    assert [path.name for path in builtin.samples()] == list(labels)
    assert all(path.is_file() for path in builtin.samples())
    assert set(labels.values()) <= set(taxonomy.read(builtin.emoji_labels()).labels)


@pytest.mark.parametrize("find", [builtin.model_path, builtin.label_file])
def test_an_unknown_name_is_refused_with_those_there_are(find: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=r"called 'builtin:x'; there are builtin:"):
        find("builtin:x")
