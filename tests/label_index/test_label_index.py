from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import pipeline

from tests.support import oracle
from tests.support.pictures import picture
from tests.support.stores import copy_store
from zsic_index import LabelIndex, Prediction
from zsic_index.encoders.transformers.encoder import TransformersEncoder
from zsic_index.errors import (
    EmbeddingError,
    ImageError,
    IndexNotFoundError,
    InputError,
    LabelError,
    ModelError,
    StoreError,
)

LABELS = ["cat", "dog", "red house", "blue sea", "old tree", "train", "one bird"]


@pytest.fixture(scope="module")
def built(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("things") / "store.db"
    LabelIndex.build(LABELS, model=clip_folder, name="things", store=store).close()
    return store


@pytest.fixture
def index(built: Path, store: Path) -> LabelIndex:
    return LabelIndex.open("things", store=copy_store(built, store))


def test_results_are_predictions_best_first(index: LabelIndex, photo: Path) -> None:
    found = index.classify(photo, top_k=3)
    assert len(found) == 3
    assert all(isinstance(prediction, Prediction) for prediction in found)
    assert found == sorted(found, key=lambda p: -p.probability)
    scale = index.info.logit_scale
    for prediction in found:
        assert prediction.logit == pytest.approx(scale * prediction.similarity)
        assert index.labels[index.label_ids.tolist().index(prediction.label_id)] == prediction.label


def test_one_image_one_list_and_several_images_several(index: LabelIndex, photo: Path) -> None:
    one = index.classify(photo)
    assert index.classify(photo.read_bytes()) == one
    assert index.classify([]) == []
    two = index.classify([photo, str(photo)])
    assert two[0] == two[1]
    for alone, beside in zip(one, two[0], strict=True):
        assert alone.label == beside.label
        assert alone.probability == pytest.approx(beside.probability, abs=1e-5)


def test_top_k_over_n_gives_all(index: LabelIndex, photo: Path) -> None:
    found = index.classify(photo, top_k=100)
    assert sorted(p.label for p in found) == sorted(LABELS)
    assert sum(p.probability for p in found) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(InputError, match="top_k"):
        index.classify(photo, top_k=0)


def test_a_refused_image_among_others(index: LabelIndex, photo: Path) -> None:
    sources = [picture(1), b"broken", photo, Path("missing.jpg"), picture(2)]
    results = list(index.stream(sources, top_k=2))
    refused = [isinstance(result, ImageError) for result in results]
    assert refused == [False, True, False, True, False]
    accepted = [results[0], results[2], results[4]]
    assert accepted == index.classify([picture(1), photo, picture(2)], top_k=2)
    with pytest.raises(ImageError, match="6 bytes"):
        index.classify(sources)


def test_all_images_refused(index: LabelIndex) -> None:
    assert all(isinstance(result, ImageError) for result in index.stream([b"a", b"b"]))


def test_an_image_that_exceeds_the_memory_alone_is_refused_by_name(
    index: LabelIndex, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that is injected: there is no GPU here."""
    expected = index.classify([picture(1), picture(2)], top_k=2)
    tower, sizes = TransformersEncoder._image_tower, list[int]()
    (refused,) = index.embed([photo])

    def small(self: TransformersEncoder, **inputs: torch.Tensor) -> torch.Tensor:
        embeddings = tower(self, **inputs)
        sizes.append(len(embeddings))
        unit = torch.nn.functional.normalize(embeddings, dim=1)
        if len(unit) > 2 or torch.isclose(unit, torch.from_numpy(refused)).all(dim=1).any():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return embeddings

    monkeypatch.setattr(TransformersEncoder, "_image_tower", small)
    first, error, last = index.stream([picture(1), photo, picture(2)], top_k=2)
    assert sizes == [3, 1, 2, 1, 1]
    assert isinstance(error, ImageError)
    assert str(error).startswith(f"{photo}: does not fit into the memory of cpu, even alone: use")
    for predictions, others in zip([first, last], expected, strict=True):
        assert not isinstance(predictions, ImageError)
        assert [p.label for p in predictions] == [p.label for p in others]
        assert predictions[0].probability == pytest.approx(others[0].probability, abs=1e-5)


def test_score_equals_classify(index: LabelIndex, photo: Path) -> None:
    assert index.score(index.embed([photo]), top_k=4) == [index.classify(photo, top_k=4)]


def test_score_loads_no_model(index: LabelIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zsic_index.encoders.load", None)
    with LabelIndex.open("things") as opened:
        assert len(opened.score(np.ones((2, 48), np.float32))) == 2


@pytest.mark.parametrize("array", [np.ones((1, 7)), np.full((1, 48), np.nan), np.zeros((1, 48))])
def test_score_refuses(index: LabelIndex, array: np.ndarray) -> None:
    with pytest.raises(EmbeddingError):
        index.score(array)


def test_subsets(index: LabelIndex, photo: Path) -> None:
    found = index.classify(photo, labels=["dog", "cat", "dog"], top_k=9)
    assert sorted(p.label for p in found) == ["cat", "dog"]
    assert sum(p.probability for p in found) == pytest.approx(1.0)
    with pytest.raises(LabelError, match="nearest: 'old tree'"):
        index.classify(photo, labels=["old trees"])
    with pytest.raises(LabelError, match="empty"):
        index.classify(photo, labels=[])
    with pytest.raises(LabelError, match="list"):
        index.classify(photo, labels="cat")


def test_a_subset_beside_the_whole_index(index: LabelIndex, photo: Path) -> None:
    whole = {p.label: p.probability for p in index.classify(photo, top_k=9)}
    found = index.classify(photo, labels=["dog", "cat"], over_index=True)
    for prediction in found:
        assert prediction.index_probability == pytest.approx(whole[prediction.label], rel=1e-9)
        share = whole[prediction.label] / (whole["cat"] + whole["dog"])
        assert prediction.probability == pytest.approx(share, rel=1e-6)
    for prediction in index.classify(photo, over_index=True):
        assert prediction.index_probability == prediction.probability
    assert all(p.index_probability is None for p in index.classify(photo, labels=["dog"]))


def test_labels_from_outside_the_index(
    index: LabelIndex, clip_folder: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subset = ["dog", "an elephant", "cat", "two elephants"]
    found = index.classify(photo, labels=subset, encode_missing=True, over_index=True)
    expected = pipeline(
        "zero-shot-image-classification", model=str(clip_folder), dtype=torch.float32, device="cpu"
    )(str(photo), candidate_labels=subset)
    assert [p.label for p in found] == [entry["label"] for entry in expected]
    for prediction, entry in zip(found, expected, strict=True):
        assert prediction.probability == pytest.approx(entry["score"], abs=1e-5)
        inside = prediction.label in LABELS
        assert (prediction.label_id is not None) == inside
        assert (prediction.index_probability is not None) == inside
    assert len(index) == len(LABELS)
    # They are in the store now.
    monkeypatch.setattr(index.encoder.source.encoder(), "encode_prompts", None)
    assert index.classify(photo, labels=subset, encode_missing=True, over_index=True) == found
    with pytest.raises(LabelError, match=r"'an elephant' is not in index 'things' \(encode"):
        index.classify(photo, labels=subset)


@pytest.mark.parametrize("label", ["", "  ", "a\0b", 7])
def test_a_subset_of_what_are_no_labels(index: LabelIndex, photo: Path, label: object) -> None:
    with pytest.raises(LabelError):
        index.classify(photo, labels=["cat", label], encode_missing=True)  # type: ignore[list-item]


def test_an_imported_index_has_no_templates_for_labels_from_outside() -> None:
    with (
        LabelIndex.from_embeddings(
            ["a", "b"], np.eye(2, 192), logit_scale=9.0, name="own", model="builtin:clip"
        ) as index,
        pytest.raises(ModelError, match="nothing says how to encode 'c'"),
    ):
        index.classify(picture(1), labels=["a", "c"], encode_missing=True)


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelIndex]:
    """An index of random embeddings of ``n0``, ``n1``, …."""
    names, rows = [f"n{row}" for row in range(40)], np.random.default_rng(1)
    with LabelIndex.from_embeddings(
        names,
        rows.standard_normal((40, 8)),
        logit_scale=30.0,
        name="own",
        store=tmp_path_factory.mktemp("numbers") / "store.db",
    ) as index:
        yield index


@given(st.integers(0, 2**31), st.lists(st.integers(0, 39), min_size=1, unique=True))
def test_any_subset_is_the_same_softmax(of_numbers: LabelIndex, seed: int, rows: list[int]) -> None:
    query = np.random.default_rng(seed).standard_normal((2, 8))
    names = [f"n{row}" for row in rows]
    answers = of_numbers.score(query, top_k=40, labels=names)
    unit = query / np.linalg.norm(query, axis=1, keepdims=True)
    similarities = oracle.similarities(unit.astype(np.float32), of_numbers.embeddings[rows])
    for predictions, expected in zip(answers, oracle.softmax(30.0 * similarities), strict=True):
        probabilities = {p.label: p.probability for p in predictions}
        assert [probabilities[name] for name in names] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("top_k", [0, 2.5, "3", None])
def test_top_k_that_is_none(index: LabelIndex, photo: Path, top_k: object) -> None:
    with pytest.raises(InputError, match="top_k"):
        index.classify(photo, top_k=top_k)  # type: ignore[arg-type]


def test_a_way_of_decoding_that_is_none(index: LabelIndex) -> None:
    with pytest.raises(InputError, match="use exact or scaled"):
        LabelIndex.open("things", decode="zzz")  # type: ignore[arg-type]


def test_labels_as_an_array(index: LabelIndex, photo: Path) -> None:
    found = index.classify(photo, labels=np.array(["cat", "dog"]))  # type: ignore[arg-type]
    assert sorted(p.label for p in found) == ["cat", "dog"]


def test_the_matrix_is_mapped_and_read_only(index: LabelIndex) -> None:
    assert index.embeddings.shape == (len(LABELS), 48)
    assert index.embeddings.flags.aligned
    assert not index.embeddings.flags.writeable
    assert len(index) == len(LABELS)


def test_open_says_what_is_there(index: LabelIndex) -> None:
    with pytest.raises(IndexNotFoundError, match="it has: things"):
        LabelIndex.open("nothing")


def test_open_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        LabelIndex.open("things", store=tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_model_that_changed_is_not_mixed_in(clip_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(clip_folder, copy)
    LabelIndex.build(LABELS, model=copy, name="things")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"comment": "changed"}))
    with LabelIndex.open("things") as opened, pytest.raises(ModelError, match="build the index"):
        opened.classify(picture(1))


def test_an_open_index_goes_on_with_its_generation(index: LabelIndex, clip_folder: Path) -> None:
    before = index.classify(picture(1), top_k=9)
    LabelIndex.build(["train", "cat", "pear"], model=clip_folder, name="things").close()
    assert index.classify(picture(1), top_k=9) == before
    with LabelIndex.open("things") as opened:
        assert opened.labels == ["train", "cat", "pear"]
        kept = {p.label: p.label_id for p in before}
        for prediction in opened.classify(picture(1)):
            assert kept.get(prediction.label, prediction.label_id) == prediction.label_id


# Embeddings made elsewhere


def test_imported_embeddings(rng: np.random.Generator) -> None:
    embeddings = rng.standard_normal((5, 12))
    with LabelIndex.from_embeddings(
        list("abcde"), embeddings, logit_scale=20.0, logit_bias=-1.0, name="own"
    ) as index:
        query = embeddings[2:3].astype(np.float32)
        found = index.score(query, top_k=5)[0]
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        logits = 20.0 * oracle.similarities(unit[2:3], unit) - 1.0
        expected = oracle.softmax(logits)
        by_label = {p.label: p for p in found}
        for label, probability, logit in zip("abcde", expected[0], logits[0], strict=True):
            assert by_label[label].probability == pytest.approx(probability, abs=1e-6)
            assert by_label[label].logit == pytest.approx(logit, abs=1e-5)
        with pytest.raises(ModelError, match="without a model"):
            index.classify(picture(1))
    with LabelIndex.open("own") as opened:
        assert opened.score(query, top_k=5)[0] == found


def test_imported_with_a_model(index: LabelIndex, clip_folder: Path, photo: Path) -> None:
    info = index.info
    with LabelIndex.from_embeddings(
        LABELS,
        np.asarray(index.embeddings),
        logit_scale=info.logit_scale,
        name="copy",
        model=clip_folder,
    ) as copy:
        ours = [(p.label, p.probability) for p in index.classify(photo)]
        for (label, probability), prediction in zip(ours, copy.classify(photo), strict=True):
            assert prediction.label == label
            assert prediction.probability == pytest.approx(probability, abs=1e-6)


def test_imported_labels_with_one_embedding() -> None:
    with LabelIndex.from_embeddings(
        ["a", "b", "c"], np.ones((3, 4)), logit_scale=1.0, activation="sigmoid", name="own"
    ) as index:
        assert [p.label for p in index.score(np.ones((1, 4)))[0]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"embeddings": np.ones((2, 4))}, EmbeddingError),
        ({"embeddings": np.zeros((3, 4))}, EmbeddingError),
        ({"labels": ["a", "b", "a"]}, LabelError),
        ({"logit_scale": 0.0}, InputError),
        ({"logit_scale": float("nan")}, InputError),
        ({"activation": "relu"}, InputError),
        ({"name": "../up"}, InputError),
    ],
)
def test_import_refuses(changes: dict[str, object], error: type[Exception]) -> None:
    good = {"labels": ["a", "b", "c"], "embeddings": np.eye(3, 4), "logit_scale": 9.0, "name": "x"}
    with pytest.raises(error):
        LabelIndex.from_embeddings(**(good | changes))  # type: ignore[arg-type]


def test_a_name_that_was_the_key_of_a_label_that_has_left(
    index: LabelIndex, clip_folder: Path, tmp_path: Path
) -> None:
    """A plain list has names as keys; built again with ids, the same names still find labels."""
    path = tmp_path / "ids.csv"
    path.write_text("id,label\n1,cat\n2,dog\ntrain,wagon\n3,train\n", encoding="utf-8")
    with LabelIndex.build(path, model=clip_folder, name="things") as again:
        rows = again.label_names.rows_of(["cat", "dog", "train", "3", "red house"])
        keys = again.label_names.keys_of(again.label_ids[list(rows.values())].tolist())
    assert dict(zip(rows, keys, strict=True)) == {
        "cat": "1", "dog": "2", "train": "train", "3": "3",
    }  # fmt: skip


def test_use_is_gone(index: LabelIndex) -> None:
    with pytest.raises(AttributeError, match=r"immutable.*with_calibration"):
        index.use(None)
    with pytest.raises(AttributeError, match="no attribute 'answers'"):
        index.answers  # noqa: B018


def test_the_public_surface_is_small() -> None:
    members = [name for name in dir(LabelIndex) if not name.startswith("_")]
    assert len(members) <= 30, members
