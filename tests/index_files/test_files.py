"""The FAISS file: whatever happens to it, the answers come from the store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.support import oracle
from zsic_index import LabelIndex
from zsic_index.errors import IndexFileError, StoreError
from zsic_index.index_files import locate_file, open_files, verify_files, write_files

pytestmark = pytest.mark.usefixtures("ready_store")

N, D = 300, 24


def make(name: str, seed: int) -> LabelIndex:
    embeddings = np.random.default_rng(seed).normal(size=(N, D))
    labels = [f"{name} {row}" for row in range(N)]
    return LabelIndex.from_embeddings(labels, embeddings, logit_scale=50.0, name=name)


def file_of(opened: LabelIndex) -> Path:
    return locate_file(opened._store.location.files, opened.info)


def delete(file: Path, _other: Path) -> None:
    file.unlink()


def truncate(file: Path, _other: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_a_byte(file: Path, _other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path, _other: Path) -> None:
    file.write_bytes(b"")


def replace_by_another(file: Path, other: Path) -> None:
    shutil.copyfile(other, file)


def replace_by_text(file: Path, _other: Path) -> None:
    file.write_bytes(b"not an index at all" * 10_000)


def replace_by_plain_faiss(file: Path, _other: Path) -> None:
    flat = faiss.IndexFlatIP(D)
    flat.add(np.zeros((N + 10, D), dtype=np.float32))
    faiss.write_index(flat, str(file))


def scramble_the_head(file: Path, _other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[:64] = bytes(64)
    file.write_bytes(content)


def brute_force(queries: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    units = [of / np.linalg.norm(of, axis=1, keepdims=True) for of in (queries, embeddings)]
    return oracle.softmax(50.0 * oracle.similarities(*units))


@pytest.mark.parametrize(
    "damage",
    [
        delete,
        truncate,
        cut_a_byte,
        empty,
        replace_by_another,
        replace_by_text,
        replace_by_plain_faiss,
        scramble_the_head,
    ],
)
def test_a_wrong_file_is_rebuilt_and_said_so(
    damage: Callable[[Path, Path], None],
    caplog: pytest.LogCaptureFixture,
    rng: np.random.Generator,
) -> None:
    with make("one", 1) as one, make("two", 2) as two:
        file, other = file_of(one), file_of(two)
        written = file.read_bytes()
    damage(file, other)
    queries = rng.normal(size=(5, D))
    with caplog.at_level(logging.WARNING, "zsic_index"), LabelIndex.open("one") as opened:
        assert str(file) in caplog.text
        assert "rebuilding it from the store" in caplog.text
        found = opened.score(queries, top_k=N)
    assert file.read_bytes() == written
    expected = brute_force(queries, np.random.default_rng(1).normal(size=(N, D)))
    for predictions, right in zip(found, expected, strict=True):
        for prediction in predictions:
            row = int(prediction.label.removeprefix("one "))
            assert prediction.probability == pytest.approx(right[row], abs=1e-6)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "zsic_index"), LabelIndex.open("one"):
        assert not caplog.text


def test_a_file_of_an_older_generation_is_stale() -> None:
    with make("one", 1) as old:
        stale = file_of(old).read_bytes()
    with make("one", 3) as new:
        file_of(new).write_bytes(stale)
        with pytest.raises(IndexFileError, match="stale"):
            open_files(file_of(new).parent, new.info)


def test_one_flipped_bit_is_found_by_verify() -> None:
    with make("one", 1) as opened:
        file, info = file_of(opened), opened.info
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(IndexFileError, match="checksum"):
        verify_files(file.parent, info)


def test_older_generations_are_removed_while_their_reader_goes_on(
    rng: np.random.Generator,
) -> None:
    query = rng.normal(size=(1, D))
    with make("one", 1) as old:
        before = old.score(query, top_k=3)
        with make("one", 2) as new:
            assert new.info.generation == old.info.generation + 1
            assert not file_of(old).exists()
            assert new.score(query, top_k=3) != before
        assert old.score(query, top_k=3) == before


def test_faiss_reads_the_file_with_the_label_ids(rng: np.random.Generator) -> None:
    query = rng.normal(size=(1, D)).astype(np.float32)
    query /= np.linalg.norm(query)
    with make("one", 1) as opened:
        ours = opened.score(query, top_k=5)[0]
        theirs = faiss.read_index(str(file_of(opened)))
    similarities, ids = theirs.search(query, 5)
    assert ids[0].tolist() == [prediction.label_id for prediction in ours]
    np.testing.assert_allclose(similarities[0], [p.similarity for p in ours], atol=1e-6)


def test_mapped_embeddings_are_aligned() -> None:
    with make("one", 1) as opened:
        assert opened.embeddings.flags.aligned
        assert not opened.embeddings.flags.writeable


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with make("one", 1) as opened:
        info = opened.info
        blocker = tmp_path / "blocked"
        blocker.write_text("a file where the folder should be")
        with pytest.raises(StoreError, match="what is in the store is safe"):
            write_files(blocker, info, opened.label_ids, [opened.embeddings])


def test_embeddings_that_are_not_of_norm_one_are_never_published(tmp_path: Path) -> None:
    with make("one", 1) as opened:
        wrong = np.array(opened.embeddings)
        wrong[7] *= 2
        with pytest.raises(StoreError, match="norm 2"):
            write_files(tmp_path, opened.info, opened.label_ids, [wrong])
    assert not list(tmp_path.glob("*.faiss"))
