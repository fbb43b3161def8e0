"""Calibrating and evaluating an index on labelled images, through the command line as well."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.stores import copy_store
from zsic_index import InputError, LabelIndex, StoreError, builtin, taxonomy
from zsic_index.cli import main
from zsic_index.evaluation import calibrate, embed_labelled, evaluate, fit_hubs, read_labelled


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def label_of(path: Path) -> str:
    return path.stem.partition("-")[2].replace("-", " ")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The sample pictures in a folder for each label, as far as their names are labels."""
    root = tmp_path / "pictures"
    with builtin.emoji_labels().open(encoding="utf-8") as file:
        names = {row["label"] for row in csv.DictReader(file)}
    for path in builtin.samples():
        if label_of(path) in names:
            folder = root / label_of(path)
            folder.mkdir(parents=True)
            shutil.copy(path, folder)
    assert len(list(root.iterdir())) >= 20
    return root


@pytest.fixture(params=["builtin:clip", "builtin:siglip"])
def index(
    request: pytest.FixtureRequest, built_store: Callable[[str], Path], store: Path
) -> LabelIndex:
    model = request.param.removeprefix("builtin:")
    return LabelIndex.open("emoji", store=copy_store(built_store(f"emoji-{model}"), store))


def test_figures_are_those_of_the_answers(index: LabelIndex, pictures: Path) -> None:
    known = embed_labelled(index, read_labelled(pictures))
    found = evaluate(index, known, source="pictures")
    hits, within = 0, 0
    for path in known.paths:
        labels = [prediction.label for prediction in index.classify(path, top_k=5)]
        hits += labels[0] == path.parent.name
        within += path.parent.name in labels
    assert found.top1.value == hits / len(known.paths)
    assert found.top5.value == within / len(known.paths)
    by_rank = {figure.rank: figure.accuracy.value for figure in found.ranks}
    assert list(by_rank) == ["group", "subgroup"]
    assert by_rank["group"] >= by_rank["subgroup"] >= found.top1.value
    assert found.calibration.after is None


def test_a_calibration_is_kept_and_used(index: LabelIndex, pictures: Path) -> None:
    known = embed_labelled(index, read_labelled(pictures))
    fitted = calibrate(index, known, coverage=0.8)
    assert fitted.fit.nll < fitted.fit.nll_before
    assert fitted.conformal is not None
    own = index.classify(known.paths[0], top_k=3)
    index.save_calibration(fitted)
    with LabelIndex.open("emoji") as again:
        stored = again.load_calibration()
        assert stored.fit == fitted.fit
        assert again.classify(known.paths[0], top_k=3) == own
        calibrated = again.with_calibration(stored).classify(known.paths[0], top_k=3)
        assert again.classify(known.paths[0], top_k=3) == own, "the index itself is unchanged"
    assert [p.label for p in calibrated] == [p.label for p in own]
    assert calibrated[0].similarity == own[0].similarity
    assert calibrated[0].logit == pytest.approx(
        own[0].similarity * fitted.fit.scale + fitted.fit.bias
    )
    assert calibrated[0].probability != own[0].probability
    figures = evaluate(index, known, source="pictures", calibration=fitted)
    assert figures.calibration.after is not None
    assert figures.coverage is not None
    index.save_calibration(None)
    assert index.find_calibration() is None


def test_a_calibrated_index_is_left_as_it_was(index: LabelIndex, pictures: Path) -> None:
    labelled = embed_labelled(index, read_labelled(pictures))
    fitted = calibrate(index, labelled, precision=0.3, coverage=0.8)
    figures = evaluate(index, labelled, source="pictures", calibration=fitted)
    own = index.score(labelled.embeddings, top_k=3)
    calibrated = index.with_calibration(fitted)
    before = calibrated.score(labelled.embeddings, top_k=3)
    assert before != own

    again = calibrate(calibrated, labelled, precision=0.3, coverage=0.8)
    hubs = fit_hubs(calibrated, labelled.embeddings, k=3)
    of_calibrated = evaluate(calibrated, labelled, source="pictures", calibration=again)

    assert calibrated.searcher.calibration is fitted
    assert calibrated.score(labelled.embeddings, top_k=3) == before
    assert index.score(labelled.embeddings, top_k=3) == own
    assert again.to_json() == fitted.to_json(), "a fit starts from the model's own numbers"
    assert hubs.to_json() == fit_hubs(index, labelled.embeddings, k=3).to_json()
    assert of_calibrated == figures


def test_an_index_that_has_changed_wants_another_calibration(
    index: LabelIndex, pictures: Path
) -> None:
    known = embed_labelled(index, read_labelled(pictures))
    index.save_calibration(calibrate(index, known))
    emoji = taxonomy.read(builtin.emoji_labels())
    with (
        LabelIndex.build(emoji, model=index.info.model_id or "", name="emoji") as changed,
        pytest.raises(StoreError, match="calibrate it again"),
    ):
        changed.find_calibration()


def test_other_templates_are_measured_and_make_no_index(index: LabelIndex, pictures: Path) -> None:
    known = embed_labelled(index, read_labelled(pictures))
    other = index.with_templates("{}")
    with LabelIndex.build(
        taxonomy.read(builtin.emoji_labels(), ranks=("group", "subgroup")),
        model=index.info.model_id or "",
        name="other",
        templates="{}",
    ) as right:
        assert right.report is not None
        assert right.report.encoded_labels == 0
        assert other.score(known.embeddings) == [
            [
                type(mine)(*(getattr(mine, field) for field in ("label", "probability", "logit",
                "similarity")), ours.label_id)
                for mine, ours in zip(line, own, strict=True)
            ]
            for line, own in zip(
                right.score(known.embeddings), other.score(known.embeddings), strict=True
            )
        ]  # fmt: skip
    found = evaluate(index, known, source="x", others={"{}": other})
    assert [one.name for one in found.template_sets] == ["{}"]


def test_the_command_line(index: LabelIndex, pictures: Path, tmp_path: Path) -> None:
    (pictures / "no such label").mkdir()
    shutil.copy(builtin.samples()[0], pictures / "no such label")
    (pictures / "pizza").mkdir(exist_ok=True)
    (pictures / "pizza" / "broken.png").write_bytes(b"nothing")
    assert run("eval", pictures, "--name", "emoji", "--calibrated").exit_code == 1
    fitted = run("calibrate", pictures, "--name", "emoji", "--coverage", "0.8")
    assert fitted.exit_code == 0, fitted.output
    assert "logit scale" in fitted.stdout
    assert "refused:" in fitted.stderr
    assert "'no such label'" in fitted.stderr
    found = run("eval", pictures, "--name", "emoji", "--calibrated", "--format", "json")
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    counts = figures["counts"]
    assert (counts["refused"], counts["unknown"]) == (1, 1)
    assert counts["given"] == sum(counts.values()) - counts["given"]
    page = tmp_path / "page.html"
    as_page = ("--format", "html", "--output", page, "--templates", "{}")
    assert run("eval", pictures, "--name", "emoji", "--calibrated", *as_page).exit_code == 0
    assert "<svg" in page.read_text(encoding="utf-8")
    picture = builtin.samples()[0]
    query = ("query", picture, "--name", "emoji", "-f", "csv")
    assert run(*query).stdout != run(*query, "--calibrated").stdout


def test_nothing_to_measure_is_an_error(index: LabelIndex, tmp_path: Path) -> None:
    folder = tmp_path / "x" / "no such label"
    folder.mkdir(parents=True)
    shutil.copy(builtin.samples()[0], folder)
    with pytest.raises(InputError, match="none of 1 images can be used"):
        embed_labelled(index, read_labelled(tmp_path / "x"))
