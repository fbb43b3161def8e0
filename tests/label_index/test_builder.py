"""Builds: what is encoded, what is not, and what happens when two run or one dies."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support import models
from zsic_index import LabelIndex, encoders
from zsic_index.embeddings import labels as label_embeddings
from zsic_index.errors import InputError, ModelError
from zsic_index.records import BuildReport

pytestmark = pytest.mark.usefixtures("ready_store")

LABELS = ["cat", "dog", "red house", "blue sea", "old tree", "train", "one bird"]


def build(labels: list[str], model: Path, **options: object) -> BuildReport:
    with LabelIndex.build(labels, model=model, name="things", **options) as index:  # type: ignore[arg-type]
        assert index.report is not None
        return index.report


def embeddings_of(name: str = "things") -> dict[str, np.ndarray]:
    with LabelIndex.open(name) as index:
        return dict(zip(index.labels, np.array(index.embeddings), strict=True))


def no_loading(*_: object, **__: object) -> None:
    raise AssertionError("the model was loaded")


class TestWhatIsEncoded:
    def test_everything_at_first(self, clip_folder: Path) -> None:
        report = build(LABELS, clip_folder, templates="photo")
        assert report.encoded_labels == len(LABELS)
        assert report.encoded_prompts == 7 * len(LABELS)
        assert report.model_loaded

    def test_nothing_and_no_model_the_second_time(
        self, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = build(LABELS, clip_folder)
        monkeypatch.setattr(encoders, "load", no_loading)
        again = build(LABELS, clip_folder)
        assert (again.encoded_prompts, again.model_loaded) == (0, False)
        assert again.reused_labels == len(LABELS)
        assert again.generation == first.generation

    def test_only_the_new_ones(self, clip_folder: Path) -> None:
        build(LABELS, clip_folder)
        old = embeddings_of()
        report = build([*LABELS, "pear", "plum"], clip_folder)
        assert (report.encoded_labels, report.reused_labels) == (2, len(LABELS))
        new = embeddings_of()
        for label in LABELS:
            np.testing.assert_array_equal(new[label], old[label])

    def test_nothing_when_labels_only_leave_or_move(
        self, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(LABELS, clip_folder)
        monkeypatch.setattr(encoders, "load", no_loading)
        report = build(LABELS[:1:-1], clip_folder)
        assert (report.encoded_labels, report.removed_labels) == (0, 2)
        with LabelIndex.open("things") as index:
            assert index.labels == LABELS[:1:-1]

    def test_everything_again_with_other_templates(self, clip_folder: Path) -> None:
        build(LABELS, clip_folder)
        report = build(LABELS, clip_folder, templates=["a drawing of {}", "{}"])
        assert report.encoded_prompts == 2 * len(LABELS)
        # The first templates' embeddings are kept.
        assert build(LABELS, clip_folder).encoded_labels == 0

    def test_a_second_index_takes_what_the_first_has(
        self, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(LABELS, clip_folder)
        monkeypatch.setattr(encoders, "load", no_loading)
        with LabelIndex.build(LABELS[:3], model=clip_folder, name="few") as index:
            assert index.labels == LABELS[:3]

    def test_changed_weights_share_nothing(self, clip_folder: Path, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(clip_folder, folder)
        build(LABELS, folder)
        before = embeddings_of()
        models.make_clip(folder, seed=1)
        report = build(LABELS, folder)
        assert report.encoded_labels == len(LABELS)
        after = embeddings_of()
        assert all(abs(before[label] @ after[label]) < 0.99 for label in LABELS)

    def test_a_changed_model_refuses_images_until_built_again(
        self, clip_folder: Path, tmp_path: Path, photo: Path
    ) -> None:
        folder = tmp_path / "model"
        shutil.copytree(clip_folder, folder)
        build(LABELS, folder)
        models.make_clip(folder, seed=1)
        with LabelIndex.open("things") as index, pytest.raises(ModelError, match="build the index"):
            index.classify(photo)

    def test_prompts_over_the_limit_are_cut_and_named(self, clip_folder: Path) -> None:
        long = "cat " * 100
        report = build(["dog", long.strip()], clip_folder)
        assert len(report.truncated) == 1
        assert report.truncated[0].startswith("This is a photo of cat")

    def test_progress_counts_up_to_what_is_missing(
        self, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(label_embeddings, "LABELS_PER_COMMIT", 3)
        seen: list[tuple[int, int]] = []
        build(LABELS, clip_folder, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "x" * 65, "a b", "ünï"])
def test_names_that_cannot_be_file_names(name: str, clip_folder: Path) -> None:
    with pytest.raises(InputError, match="index name"):
        LabelIndex.build(LABELS, model=clip_folder, name=name)


def test_a_build_that_fails_half_way_goes_on_where_it_stopped(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_embeddings, "LABELS_PER_COMMIT", 3)

    def stop(done: int, _total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(LABELS, clip_folder, progress=stop)
    report = build(LABELS, clip_folder)
    assert (report.encoded_labels, report.reused_labels) == (1, 6)
