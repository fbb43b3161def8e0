"""A bias against hubs, from images without labels: fitted, kept, and in every answer."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.support import oracle
from zsic_index import InputError, LabelIndex, StoreError, builtin
from zsic_index.calibration import Calibration
from zsic_index.cli import main
from zsic_index.embedding_arrays import Float32, Float64
from zsic_index.evaluation import (
    calibrate,
    embed_labelled,
    evaluate,
    fit_hubs,
    read_labelled,
    read_unlabelled,
)
from zsic_index.querying.decider import Decider
from zsic_index.querying.rules import MostNegativeMass
from zsic_index.records import Prediction

ROWS = (
    ("dog face", "animal", "hound|puppy"),
    ("cat face", "animal", "kitten"),
    ("pizza", "thing", ""),
    ("rocket", "thing", "spaceship"),
    ("key", "thing", ""),
    ("umbrella", "thing", ""),
    ("red apple", "food", "fruit"),
    ("tomato", "food", ""),
    ("elephant", "animal", ""),
)
INDEXES: dict[str, tuple[str, Literal["flat", "float16"], Literal["mean", "max", "mass"]]] = {
    "plain": ("builtin:clip", "flat", "mean"),
    "half": ("builtin:clip", "float16", "mean"),
    "max": ("builtin:clip", "flat", "max"),
    "mass": ("builtin:clip", "flat", "mass"),
    "sigmoid": ("builtin:siglip", "flat", "mean"),
    "sigmoid-max": ("builtin:siglip", "flat", "max"),
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of indexes, the samples by label, and some of them without labels."""
    room = tmp_path_factory.mktemp("hubs")
    with (room / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("label", "rank1", "aliases")])
    lines = ["id,label,parent,rank,aliases"]
    kinds = sorted({kind for _, kind, _ in ROWS})
    lines += [f"{kind},{kind},,kind," for kind in kinds]
    lines += [f"{label},{label},{kind},,{others}" for label, kind, others in ROWS]
    (room / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, (model, kind, names) in INDEXES.items():
        LabelIndex.build(
            room / "labels.csv",
            model=model,
            name=name,
            kind=kind,
            name_pooling=names,
            store=room / "store.db",
        ).close()
    labels = builtin.sample_labels().values()
    for at, (path, label) in enumerate(zip(builtin.samples(), labels, strict=True)):
        if label in {row[0] for row in ROWS}:
            (room / "labelled" / label).mkdir(parents=True)
            shutil.copy(path, room / "labelled" / label)
        if at % 2:
            (room / "unlabelled" / f"{at % 3}").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, room / "unlabelled" / f"{at % 3}")
    return room


@pytest.fixture
def store(store: Path, room: Path) -> Path:
    shutil.copytree(room, store.parent, dirs_exist_ok=True)
    return store


@pytest.fixture(params=INDEXES)
def index(request: pytest.FixtureRequest, store: Path) -> Iterator[LabelIndex]:
    with LabelIndex.open(request.param) as index:
        yield index


EMBEDDED: dict[str, Float32] = {}


def samples_of(index: LabelIndex) -> Float32:
    """Return the embeddings of the samples, computed once for each model."""
    model = index.info.model_id or ""
    if model not in EMBEDDED:
        EMBEDDED[model] = index.embed(builtin.samples())
    return EMBEDDED[model]


@pytest.fixture
def references(index: LabelIndex) -> Float32:
    return samples_of(index)


@pytest.fixture
def hubs(index: LabelIndex, references: Float32) -> Calibration:
    return fit_hubs(index, references, k=5, alpha=0.8)


def similarities(index: LabelIndex, embeddings: Float32, scale: float) -> Float64:
    """(B, N) of labels, in float64, name by name."""
    of_names = oracle.similarities(embeddings, index.embeddings)
    pooling = index.searcher.pooling
    if pooling is None:
        return of_names
    columns = [range(*edges) for edges in pairwise(pooling.starts.tolist())]
    return oracle.pooled(of_names, columns, index.info.name_pooling, scale)


def logits_of(index: LabelIndex, embeddings: Float32, fitted: Calibration) -> Float64:
    """(B, N) calibrated logits; the bias by its definition."""
    assert fitted.hubs is not None
    scale = fitted.fit.scale if fitted.fit else index.info.logit_scale
    bias = fitted.fit.bias if fitted.fit else index.info.logit_bias
    reached = similarities(index, samples_of(index), index.info.logit_scale)
    mean = fitted.hubs.alpha * np.sort(reached, axis=0)[-fitted.hubs.k :].mean(axis=0)
    less = similarities(index, embeddings, scale) - (mean - mean.mean())
    return scale * less + bias


def probabilities_of(index: LabelIndex, logits: Float64) -> Float64:
    return oracle.probabilities(logits, index.info.activation)


def check(
    index: LabelIndex, found: list[list[Prediction]], logits: Float64, plain: Float64
) -> None:
    """Compare answers with all labels' logits, -inf for those that were not asked about."""
    ids = index.label_ids.tolist()
    for line, of_labels, right, similar in zip(
        found, logits, probabilities_of(index, logits), plain, strict=True
    ):
        order = [ids.index(one.label_id) for one in line]
        assert order == np.argsort(-of_labels, kind="stable")[: len(line)].tolist()
        for at, one in zip(order, line, strict=True):
            assert one.logit == pytest.approx(of_labels[at], abs=1e-4)
            assert one.probability == pytest.approx(right[at], abs=1e-5)
            assert one.similarity == pytest.approx(similar[at], abs=1e-9)


@pytest.mark.parametrize("with_scale", [False, True])
def test_all_answers_follow_the_bias(
    index: LabelIndex, hubs: Calibration, store: Path, with_scale: bool
) -> None:
    if with_scale:
        known = embed_labelled(index, read_labelled(store.parent / "labelled"))
        # Ten images, most of them easy, say little of a scale: their labels are turned round.
        turned = known.take(np.arange(len(known.paths)))
        turned.truth.label[:3] = turned.truth.label[:3][::-1]
        hubs = calibrate(index, turned, hubs=hubs)
        assert hubs.fit is not None
        assert hubs.fit.scale != index.info.logit_scale
    embeddings = samples_of(index)
    logits = logits_of(index, embeddings, hubs)
    own = [[one.label for one in line] for line in index.score(embeddings, top_k=4)]
    index = index.with_calibration(hubs)
    plain = similarities(index, embeddings, index.searcher.logit_scale)
    found = index.score(embeddings, top_k=len(index))
    check(index, found, logits, plain)
    assert [[one.label for one in line[:4]] for line in found] != own, "the bias changes something"

    keys = index.label_names.keys_of(index.label_ids.tolist())
    chosen = [keys.index(key) for key in ("key", "tomato", "dog face", "animal")]
    of_subset = np.full_like(logits, -np.inf)
    of_subset[:, chosen] = logits[:, chosen]
    subset = index.score(embeddings, 4, labels=[keys[at] for at in chosen], over_index=True)
    check(index, subset, of_subset, plain)
    probabilities = probabilities_of(index, logits)
    for line, right in zip(subset, probabilities, strict=True):
        for one in line:
            at = index.label_ids.tolist().index(one.label_id)
            # In half precision all but the best are summed as they were rounded.
            near = 1e-3 if index.info.kind == "float16" else 1e-5
            assert one.index_probability == pytest.approx(right[at], abs=near)
    np.testing.assert_allclose(index.probabilities(builtin.samples()), probabilities, atol=1e-5)

    kinds = {kind: [kind, *(row[0] for row in ROWS if row[1] == kind)] for _, kind, _ in ROWS}
    columns = [[keys.index(key) for key in below] for below in kinds.values()]
    how: Literal["mass", "max"] = "mass" if index.info.activation == "softmax" else "max"
    of_kinds = dict(zip(kinds, oracle.of_nodes(probabilities, columns, how).T, strict=True))
    for image, nodes in enumerate(index.score_rank(embeddings, rank="kind")):
        for node in nodes:
            assert node.probability == pytest.approx(of_kinds[node.label][image], abs=1e-5)
    for image, deepest in enumerate(index.score_deepest(embeddings, floor=0.5)):
        if deepest is not None and deepest.label in of_kinds:
            assert deepest.probability == pytest.approx(of_kinds[deepest.label][image], abs=1e-5)

    index = index.with_calibration(None)
    assert [[one.label for one in line] for line in index.score(embeddings, top_k=4)] == own


def test_what_is_outside_has_the_mean_of_all(index: LabelIndex, hubs: Calibration) -> None:
    """A label that nothing was fitted for keeps its similarity; so do negative labels."""
    embeddings = samples_of(index)
    logits = logits_of(index, embeddings, hubs)
    index = index.with_calibration(hubs)
    outside = index.encoder.encode_labels(["guitar", "ghost"]).astype(np.float64)
    of_outside = embeddings @ outside.T * index.searcher.logit_scale + index.searcher.logit_bias
    for image, line in enumerate(
        index.classify(builtin.samples(), labels=["key", "guitar"], encode_missing=True)
    ):
        by_label = {one.label: one for one in line}
        assert by_label["guitar"].logit == pytest.approx(of_outside[image, 0], abs=1e-4)
        at = index.labels.index("key")
        assert by_label["key"].logit == pytest.approx(logits[image, at], abs=1e-4)
    if index.info.activation == "softmax":
        mass, whole = oracle.log_sum_exp(of_outside), oracle.log_sum_exp(logits)
        share = np.exp(mass - np.logaddexp(mass, whole))
    else:
        share = oracle.sigmoid(of_outside).max(axis=1)
    limit = float(np.median(share)) + 1e-9
    decider = Decider(index, rules=[MostNegativeMass(limit)], negatives=["guitar", "ghost"])
    decided = [one.reason is not None for one in decider.decide(embeddings)]
    sure = np.abs(share - limit) > 1e-6
    assert np.array(decided)[sure].tolist() == (share > limit)[sure].tolist()


def test_it_is_kept_with_what_it_was_fitted_on(
    index: LabelIndex, hubs: Calibration, references: Float32
) -> None:
    index.save_calibration(hubs)
    with LabelIndex.open(index.info.name) as again:
        kept = again.find_calibration()
        assert kept is not None
        assert kept.hubs is not None
        assert (kept.hubs.k, kept.hubs.alpha, kept.hubs.references) == (5, 0.8, 40)
        assert kept.fitted_on == hubs.fitted_on
        assert kept.fitted_on.images == 0
        assert again.score(references) == index.score(references), (
            "its own numbers stay the default"
        )
        fitted = index.with_calibration(hubs).score(references)
        assert again.with_calibration(kept).score(references) == fitted
    other = fit_hubs(index, references[:20], k=5, alpha=0.8)
    assert other.fitted_on.digest != hubs.fitted_on.digest


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_a_search_by_similarity_cannot_use_it(store: Path, kind: Literal["hnsw", "ivf"]) -> None:
    with LabelIndex.open("plain") as plain:
        references = plain.embed(builtin.samples())
        fitted = fit_hubs(plain, references)
    with LabelIndex.build(
        store.parent / "labels.csv", model="builtin:clip", name="near", kind=kind
    ) as index:
        for attempt in (
            lambda: index.with_calibration(fitted),
            lambda: fit_hubs(index, references),
        ):
            with pytest.raises(InputError, match=f"of kind {kind}.*'flat' or 'float16'"):
                attempt()


def test_an_evaluation_has_both(store: Path) -> None:
    with LabelIndex.open("plain") as index:
        known = embed_labelled(index, read_labelled(store.parent / "labelled"))
        fitted = fit_hubs(index, index.embed(builtin.samples()), k=3, alpha=9.0)
        found = evaluate(index, known, source="x", calibration=fitted)
        right = [path.parent.name for path in known.paths]
        own = [line[0].label for line in index.score(known.embeddings)]
        fitted_index = index.with_calibration(fitted)
        after = [line[0].label for line in fitted_index.score(known.embeddings)]
    assert own != after
    assert found.top1.value == np.mean([a == b for a, b in zip(own, right, strict=True)])
    assert found.calibrated_top1 is not None
    assert found.calibrated_top1.value == np.mean(
        [a == b for a, b in zip(after, right, strict=True)]
    )
    assert found.calibration.note.startswith("Label bias from 40 images without labels, 2")
    without = evaluate(index, known, source="x")
    assert without.calibrated_top1 is None


# Reading


def test_images_without_labels_come_in_folders_and_lists(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in ("b.png", "inner/a.JPG", ".hidden/c.png", "notes.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    both = [folder / "b.png", folder / "inner/a.JPG"]
    assert read_unlabelled(folder) == both
    (tmp_path / "list.txt").write_text("pictures/b.png\n\npictures/inner/a.JPG\npictures/b.png\n")
    (tmp_path / "list.csv").write_text("path,more\npictures/b.png,1\npictures/inner/a.JPG,2\n")
    for name in ("list.txt", "list.csv"):
        assert read_unlabelled(tmp_path / name) == both
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("empty", "empty.txt"):
        with pytest.raises(InputError, match="no images in it"):
            read_unlabelled(tmp_path / name)
    with pytest.raises(InputError, match=r"missing\.txt: cannot be read"):
        read_unlabelled(tmp_path / "missing.txt")


# The command line


def test_the_command_line_fits_keeps_and_uses_it(store: Path) -> None:
    broken = store.parent / "unlabelled" / "0" / "broken.png"
    broken.write_bytes(b"nothing")
    hubs = ("--hubs", store.parent / "unlabelled", "--k", "4", "--alpha", "2")
    done = run("calibrate", "--name", "plain", *hubs)
    assert done.exit_code == 0, done.output
    assert "plain: label bias from 20 images without labels (k 4, alpha 2): -" in done.stdout
    assert "logit scale" not in done.stdout
    assert "refused: " in done.stderr
    assert "broken.png" in done.stderr

    picture = builtin.samples()[1]
    query = ("query", picture, "--name", "plain", "-f", "csv", "-k", "4")
    own, other = (
        list(csv.DictReader(io.StringIO(run(*query, *more).stdout)))
        for more in ((), ("--calibrated",))
    )
    assert own != other
    similar = {row["label"]: row["similarity"] for row in own}
    common = [row for row in other if row["label"] in similar]
    assert common
    for row in common:
        assert float(row["similarity"]) == pytest.approx(float(similar[row["label"]]))

    measured = run("eval", store.parent / "labelled", "--name", "plain", "--calibrated")
    assert measured.exit_code == 0, measured.output
    assert "top-1, calibrated" in measured.stdout
    as_json = run(
        "eval", store.parent / "labelled", "--name", "plain", "--calibrated", "-f", "json"
    )
    assert json.loads(as_json.stdout)["calibrated_top1"]["images"] > 0
    page = run("eval", store.parent / "labelled", "--name", "plain", "--calibrated", "-f", "html")
    assert "Right label first, calibrated" in page.stdout


def test_the_command_line_fits_a_scale_on_top(store: Path) -> None:
    labelled, unlabelled = store.parent / "labelled", store.parent / "unlabelled"
    shutil.move(labelled / "key" / "16-key.jpg", labelled / "pizza")
    (labelled / "key").rmdir()
    both = run("calibrate", labelled, "--name", "mass", "--hubs", unlabelled, "--alpha", "0.1")
    assert both.exit_code == 0, both.output
    assert "label bias from 20 images without labels (k 16, alpha 0.1)" in both.stdout
    assert "logit scale" in both.stdout
    with LabelIndex.open("mass") as index:
        kept = index.load_calibration()
        assert kept.hubs is not None
        assert kept.fit is not None
        known = embed_labelled(index, read_labelled(labelled))
        hubs = fit_hubs(index, index.embed(read_unlabelled(unlabelled)), alpha=0.1)
        logits = []
        for scale in (kept.fit.scale * 0.9, kept.fit.scale, kept.fit.scale * 1.1):
            assert hubs.hubs is not None
            less = similarities(index, known.embeddings, scale) - hubs.hubs.of(index.label_ids)
            logits.append(scale * less)
        losses = [oracle.softmax_loss(of_scale, known.truth.first_labels()) for of_scale in logits]
        assert losses[1] == min(losses)
        assert kept.fit.nll == pytest.approx(losses[1], rel=1e-4)
    # The next calibration stands alone again.
    assert run("calibrate", labelled, "--name", "mass").exit_code == 0
    with LabelIndex.open("mass") as index:
        assert index.load_calibration().hubs is None


def test_an_index_that_has_changed_wants_another_bias(store: Path) -> None:
    run("calibrate", "--name", "plain", "--hubs", store.parent / "unlabelled")
    with (
        LabelIndex.build(["dog face", "key"], model="builtin:clip", name="plain") as changed,
        pytest.raises(StoreError, match="calibrate it again"),
    ):
        changed.find_calibration()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give labelled images as SOURCE"),
        (("--hubs", ".", "--coverage", "0.9"), "need labelled images"),
        ((".", "--k", "3"), "are for --hubs"),
    ],
)
def test_what_does_not_go_together_is_refused(
    store: Path, arguments: tuple[str, ...], message: str
) -> None:
    refused = run("calibrate", "--name", "plain", *arguments)
    assert refused.exit_code == 2
    assert message in refused.output


def test_too_few_images_say_so(store: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(builtin.samples()[0], one)
    few = run("calibrate", "--name", "plain", "--hubs", one)
    assert few.exit_code == 1
    assert "k is 16; it must be from 1 to the 1 reference images" in few.output
    (one / builtin.samples()[0].name).write_bytes(b"nothing")
    none = run("calibrate", "--name", "plain", "--hubs", one)
    assert none.exit_code == 1
    assert "none of 1 images can be read" in none.output
