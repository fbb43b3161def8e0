"""Templates of requests: refused by default, and never written to the store."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.support.libraries import SAMPLES
from tests.support.services import Served, serving
from tests.support.stores import copy_store
from zsic_index import LabelIndex
from zsic_index.encoders.two_towers import TwoTowerEncoder

DOG = base64.b64encode(SAMPLES["dog-face"].read_bytes()).decode()


@pytest.fixture
def store(built_store: Callable[[str], Path], tmp_path: Path) -> Path:
    return copy_store(built_store("served"), tmp_path / "copy")


def classify(service: Served, *templates: str) -> httpx2.Response:
    return httpx2.post(
        f"{service.url}/v1/classify",
        json={"index": "things", "images": [DOG], "templates": list(templates)},
        timeout=60,
    )


def digest(store: Path) -> str:
    return hashlib.sha256(store.read_bytes()).hexdigest()


@contextmanager
def counted_prompts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the prompts that the text tower encodes."""
    counts: list[int] = []
    encode = TwoTowerEncoder.encode_tokens

    def counting(self: Any, tokens: Any) -> Any:
        encoded = encode(self, tokens)
        counts.append(len(encoded.embeddings))
        return encoded

    with monkeypatch.context() as patched:
        patched.setattr(TwoTowerEncoder, "encode_tokens", counting)
        yield counts


def test_they_are_refused_by_default(store: Path) -> None:
    with serving(store) as service:
        response = classify(service, "a drawing of a {}.")
        assert response.status_code == 422
        assert "--templates" in response.json()["detail"]
        assert httpx2.get(f"{service.url}/v1/indexes").json()["max_template_sets"] == 0
        assert classify(service).status_code == 200


def test_the_store_does_not_grow(store: Path) -> None:
    before = digest(store)
    with serving(store, max_template_sets=2) as service:
        for number in range(5):
            assert classify(service, f"drawing {number} of {{}}", "{}").status_code == 200
    assert digest(store) == before


def test_a_store_that_can_only_be_read(store: Path) -> None:
    with LabelIndex.open("things", store=store) as index:
        expected = index.with_templates("a {}, painted.", keep=False).classify(
            SAMPLES["dog-face"], top_k=1
        )
    with sqlite3.connect(store) as connection:
        # Permissions do not bind an administrator; a trigger does.
        for table in ("embedding", "encoder"):
            connection.execute(
                f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'readonly'); END"
            )
    with serving(store, max_template_sets=1) as service:
        response = classify(service, "a {}, painted.")
    assert response.status_code == 200, response.text
    first = response.json()["results"][0]["predictions"][0]
    assert first["label"] == expected[0].label
    assert first["probability"] == pytest.approx(expected[0].probability, abs=1e-6)


def test_the_least_recently_used_set_is_dropped(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(store, max_template_sets=2) as service, counted_prompts(monkeypatch) as counts:
        encoded = []
        for template in ("one {}", "two {}", "one {}", "three {}", "one {}", "two {}"):
            counts.clear()
            assert classify(service, template).status_code == 200
            encoded.append(bool(counts))
    assert encoded == [True, True, False, True, False, True]


def test_embeddings_of_the_store_are_used(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LabelIndex.open("things", store=store) as index:
        kept = np.array(index.with_templates("a kept {}.").embeddings)
        with counted_prompts(monkeypatch) as counts:
            read = np.array(index.with_templates("a kept {}.", keep=False).embeddings)
            assert counts == []
            size = store.stat().st_size
            new = np.array(index.with_templates("a new {}.", keep=False).embeddings)
            assert counts
        assert store.stat().st_size == size
        np.testing.assert_array_equal(kept, read)
        np.testing.assert_allclose(
            new, np.array(index.with_templates("a new {}.").embeddings), atol=1e-6
        )
