"""Metrics against brute force, labelled images and their counts, and the page in a browser."""

from __future__ import annotations

import dataclasses
import html.parser
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from tests.support.browsers import in_a_browser
from zsic_index import LabelIndex, builtin, evaluation
from zsic_index.calibration import fit_temperature
from zsic_index.calibration.reliability import Binning, reliability
from zsic_index.calibration.truth import Truth
from zsic_index.errors import InputError
from zsic_index.evaluation import metrics, read_labelled, record, report
from zsic_index.evaluation.metrics import NO_NODE
from zsic_index.evaluation.reading import LabelledImage
from zsic_index.evaluation.record import Evaluation
from zsic_index.scan.exact import scan
from zsic_index.scan.probabilities import activate

# Truth and hits


def test_truth_is_in_order_and_without_repeats() -> None:
    truth = Truth.of(3, 10, [2, 0, 2, 0], [5, 9, 5, 1])
    assert truth.image.tolist() == [0, 0, 2]
    assert truth.label.tolist() == [1, 9, 5]
    rows = np.array([[9, 0, 1], [1, 9, 5], [4, 5, 6]])
    assert truth.contains(rows).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert not Truth.of(3, 10, [], []).contains(rows).any()


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [([0, 3], [0, 0], "image row 3"), ([0], [-1], "label row -1"), ([0], [0, 1], "pairs"),
     ([[0]], [0], "shape")],
)  # fmt: skip
def test_truth_refuses(image: list[int], label: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Truth.of(3, 10, image, label)


def test_hits_within_the_first_k() -> None:
    truth = Truth.of(3, 9, [0, 0, 1, 2], [4, 5, 0, 8])
    rows = np.array([[1, 5, 4], [0, 1, 2], [1, 2, 3]])
    assert metrics.hits_within(rows, truth, 1).tolist() == [False, True, False]
    assert metrics.hits_within(rows, truth, 2).tolist() == [True, True, False]
    assert metrics.hits_within(rows, truth, 9).tolist() == [True, True, False]
    with pytest.raises(InputError, match="k is 0"):
        metrics.hits_within(rows, truth, 0)
    with pytest.raises(InputError, match="2 predictions for 3"):
        metrics.hits_within(rows[:2], truth, 1)


# Accuracy


def test_accuracy_and_its_interval() -> None:
    found = metrics.accuracy(np.arange(1_000) < 700)
    assert (found.value, found.images) == (0.7, 1_000)
    # The normal approximation, 1.96 standard errors of 0.0145.
    assert (found.low, found.high) == pytest.approx((0.6716, 0.7284), abs=0.003)
    assert metrics.accuracy(np.arange(1_000) < 700) == found


def test_an_interval_is_what_resampling_gives() -> None:
    correct = np.arange(80) < 30
    rng = np.random.default_rng(1)
    drawn = [rng.choice(correct, 80).mean() for _ in range(10_000)]
    found = metrics.accuracy(correct)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(drawn, (0.025, 0.975))), abs=1.5 / 80
    )


def test_forty_of_forty_is_not_certainty() -> None:
    found = metrics.accuracy(np.ones(40, dtype=bool))
    assert (found.value, found.high) == (1, 1)
    assert found.low**40 == pytest.approx(0.05)
    none = metrics.accuracy(np.zeros(40, dtype=bool))
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(1 - found.low))
    with pytest.raises(InputError, match="no images"):
        metrics.accuracy(np.zeros(0, dtype=bool))


def test_accuracy_by_rank_leaves_out_null_ranks() -> None:
    true = np.array([[0, 5, NO_NODE], [0, NO_NODE, NO_NODE], [1, 6, NO_NODE], [1, 7, NO_NODE]])
    predicted = np.array([[0, 5, 9], [1, NO_NODE, 9], [1, NO_NODE, 9], [1, 5, 9]])
    found = metrics.accuracy_by_rank(predicted, true)
    assert [one and (one.value, one.images) for one in found] == [(0.75, 4), (1 / 3, 3), None]
    with pytest.raises(InputError, match="twice"):
        metrics.accuracy_by_rank(predicted[:, :2], true)


# Average precision, F1


def brute_average_precision(scores: list[float], relevant: list[bool]) -> float:
    """Precision times recall gained, over distinct thresholds from the top."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [right for score, right in zip(scores, relevant, strict=True) if score >= threshold]
        recall = sum(taken) / sum(relevant)
        total += (recall - recall_before) * sum(taken) / len(taken)
        recall_before = recall
    return total


def test_average_precision_by_hand() -> None:
    scores = np.array([[0.9, 1], [0.8, 1], [0.7, 1], [0.6, 1]])
    relevant = np.array([[True, False], [False, True], [True, False], [False, False]])
    assert metrics.average_precision(scores, relevant).tolist() == [(1 + 2 / 3) / 2, 1 / 4]
    assert np.isnan(metrics.average_precision(scores, relevant & False)).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 5), st.integers(1, 8))
@settings(max_examples=60)
def test_average_precision_is_that_of_brute_force(seed: int, b: int, n: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(values, size=(b, n)).astype(np.float64)
    relevant = rng.random((b, n)) < 0.3
    for at, found in enumerate(metrics.average_precision(scores, relevant)):
        if not relevant[:, at].any():
            assert np.isnan(found)
        else:
            brute = brute_average_precision(scores[:, at].tolist(), relevant[:, at].tolist())
            assert found == pytest.approx(brute)


@pytest.mark.parametrize("block", [1, 7 * 30, 1 << 22])
@pytest.mark.parametrize("softmax", [False, True])
def test_mean_average_precision_in_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, block: int, softmax: bool
) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", block)
    matrix = rng.standard_normal((50, 8)).astype(np.float32)
    queries = rng.standard_normal((30, 8)).astype(np.float32)
    right = rng.random((30, 50)) < 0.03
    logits = (queries @ matrix.T).astype(np.float64) * 2
    partition = oracle.log_sum_exp(logits) if softmax else None
    scores = logits - partition[:, None] if partition is not None else logits
    brute = [
        brute_average_precision(scores[:, at].tolist(), right[:, at].tolist())
        for at in np.flatnonzero(right.any(axis=0))
    ]
    found = metrics.mean_average_precision(
        matrix, queries, Truth.of(30, 50, *np.nonzero(right)),
        logit_scale=2.0, log_partition=partition,
    )  # fmt: skip
    assert found == pytest.approx(np.mean(brute), rel=1e-6)


def test_f1_by_hand() -> None:
    truth = Truth.of(3, 9, [0, 0, 1, 2], [1, 2, 1, 3])
    rows = np.array([[1, 4], [1, 2], [7, 8]])
    chosen = np.array([[True, True], [True, True], [True, False]])
    found = metrics.f1(rows, chosen, truth)
    # Said 5, right 4, hits 2. Label 1: 2 of 2 and 2; label 2: said once, wrongly; label 3: never.
    assert found == metrics.F1(micro=4 / 9, macro=pytest.approx(1 / 3), labels=3)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_f1_is_that_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = rng.random((12, 9)) < 0.2
    right[0, 0] = True
    rows = np.argsort(rng.random((12, 9)), axis=1)[:, :6]
    chosen = rng.random((12, 6)) < 0.4
    said = np.zeros((12, 9), dtype=bool)
    said[np.nonzero(chosen)[0], rows[chosen]] = True
    found = metrics.f1(rows, chosen, Truth.of(12, 9, *np.nonzero(right)))
    hits, false, missed = said & right, said & ~right, ~said & right
    assert found.micro == pytest.approx(2 * hits.sum() / (2 * hits.sum() + (said ^ right).sum()))
    each = [
        2 * hits[:, at].sum() / (2 * hits[:, at].sum() + false[:, at].sum() + missed[:, at].sum())
        for at in np.flatnonzero(right.any(axis=0))
    ]
    assert found.macro == pytest.approx(np.mean(each))


# Reliability, confusions

BINNINGS: list[Binning] = ["equal-width", "equal-mass"]


def test_reliability_by_hand() -> None:
    probabilities = np.array([0.05, 0.1, 0.95, 1.0, 1.0, 0.5])
    correct = np.array([False, True, True, True, False, True])
    found = reliability(probabilities, correct, bins=2)
    low, high = found.bins
    assert (low.low, low.high, low.answers, low.accuracy) == (0, 0.5, 2, 0.5)
    assert (high.low, high.high, high.answers, high.accuracy) == (0.5, 1, 4, 0.75)
    assert (low.probability, high.probability) == pytest.approx((0.075, 0.8625))
    assert found.error == pytest.approx((2 * 0.425 + 4 * 0.1125) / 6)


@given(st.integers(0, 2**32 - 1), st.sampled_from(BINNINGS), st.integers(1, 20))
@settings(max_examples=80)
def test_reliability_adds_up(seed: int, binning: Binning, bins: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.choice(rng.random(12) ** 2, 100)
    correct = rng.random(100) < 0.5
    found = reliability(probabilities, correct, bins=bins, binning=binning)
    order = rng.permutation(100)
    again = reliability(probabilities[order], correct[order], bins=bins, binning=binning)
    assert again.error == pytest.approx(found.error)
    assert [one.answers for one in again.bins] == [one.answers for one in found.bins]
    assert len(found.bins) <= bins
    assert sum(one.answers for one in found.bins) == found.answers == 100
    error = 0.0
    for one in found.bins:
        last = one is found.bins[-1]
        inside = (probabilities >= one.low) & (
            (probabilities <= one.high) if last else (probabilities < one.high)
        )
        assert inside.sum() == one.answers
        assert one.accuracy == pytest.approx(correct[inside].mean())
        error += abs(correct[inside].sum() - probabilities[inside].sum()) / 100
    assert found.error == pytest.approx(error)


def test_equal_mass_bins_hold_about_as_many() -> None:
    probabilities = np.random.default_rng(0).random(1_500) ** 4
    found = reliability(probabilities, probabilities > 2, binning="equal-mass")
    assert [one.answers for one in found.bins] == [100] * 15


@pytest.mark.parametrize("binning", BINNINGS)
def test_perfect_probabilities_have_no_error(binning: Binning) -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.random(200_000)
    found = reliability(probabilities, rng.random(200_000) < probabilities, binning=binning)
    assert found.error < 0.01
    one = reliability(np.ones(5), np.ones(5, dtype=bool), binning=binning)
    assert (one.error, len(one.bins)) == (0, 1)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [([1.2], "1.2"), ([float("nan")], "nan"), ([], "no answers"), ([[0.1]], "shape")],
)
def test_reliability_refuses(probabilities: list[float], message: str) -> None:
    array = np.array(probabilities)
    with pytest.raises(InputError, match=message):
        reliability(array, np.zeros(array.shape, dtype=bool))


def test_confusions_are_counted_most_frequent_first() -> None:
    true = np.array([5, 5, 5, 1, 1, 9, 9, 9, 9])
    predicted = np.array([2, 2, 5, 0, 3, 9, 4, 4, 4])
    assert metrics.confusions(true, predicted, 3) == [(9, 4, 3), (5, 2, 2), (1, 0, 1)]
    assert metrics.confusions(true, predicted, 99)[3:] == [(1, 3, 1)]
    assert metrics.confusions(true, true, 3) == []


# Labelled images


def touch(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def adds_up(found: evaluation.LabelledImages) -> bool:
    parts = (len(found.images), found.repeated, len(found.missing), found.unlabelled, found.ignored)
    return found.entries == sum(parts)


def test_a_folder_per_label(tmp_path: Path) -> None:
    for name in (
        "Aves/Corvidae/Pica pica/b.JPG",
        "Aves/Corvidae/Pica pica/a.png",
        "Aves/Corvidae/unsure.webp",
        "red fox, {x}/1.jpeg",
        "lone.png",
        "readme.txt",
        "red fox, {x}/.hidden.png",
        "red fox, {x}/Thumbs.db",
        ".cache/red fox/1.png",
    ):
        touch(tmp_path / name)
    found = read_labelled(tmp_path)
    assert [(str(one.path.relative_to(tmp_path)), one.labels) for one in found.images] == [
        ("Aves/Corvidae/unsure.webp", ("Corvidae",)),
        ("Aves/Corvidae/Pica pica/a.png", ("Pica pica",)),
        ("Aves/Corvidae/Pica pica/b.JPG", ("Pica pica",)),
        ("red fox, {x}/1.jpeg", ("red fox, {x}",)),
    ]
    assert (found.unlabelled, found.ignored, found.entries) == (1, 4, 9)
    assert adds_up(found)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", 'path,label\nx/1.png,"wren, {small}"\n2.png, robin | wren \ngone.png,wren\n'
                  "2.png,wren|jay\ngone.png,jay\n"),
        ("a.csv", "\ufefflabel;path\r\nwren, {small};x/1.png\r\nrobin|wren;2.png\r\nwren;gone.png"
                  "\r\nwren|jay;2.png\r\njay;gone.png\r\n"),
        ("a.tsv", "path\tlabel\tby\nx/1.png\twren, {small}\tme\n2.png\trobin|wren\n"
                  "gone.png\twren\n2.png\twren|jay\ngone.png\tjay\n"),
    ],
)  # fmt: skip
def test_a_table(tmp_path: Path, name: str, data: str) -> None:
    one, two = touch(tmp_path / "x/1.png"), touch(tmp_path / "2.png")
    found = read_labelled(touch(tmp_path / name, data.encode()))
    assert found.images == (
        LabelledImage(one, ("wren, {small}",)),
        LabelledImage(two, ("robin", "wren", "jay")),
    )
    assert (found.entries, found.repeated, found.missing) == (5, 1, (tmp_path / "gone.png",) * 2)
    assert adds_up(found)


def test_absolute_paths(tmp_path: Path) -> None:
    image = touch(tmp_path / "pictures/1.png")
    found = read_labelled(touch(tmp_path / "lists/a.csv", f"path,label\n{image},wren\n".encode()))
    assert found.images[0].path == image


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("path,label\n1.png,wren\n,robin\n", "line 3.*path is empty"),
        ("path,label\n1.png,\n", "line 2.*label is empty"),
        ("path,label\n1.png,wren|\n", "line 2.*label is empty"),
        ("path,name\n1.png,wren\n", "no column 'label'"),
        ("path,label\n", "no labelled images"),
        ("path,label\ngone.png,wren\n", "1 files are missing"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, data: str, message: str) -> None:
    touch(tmp_path / "1.png")
    with pytest.raises(InputError, match=message) as caught:
        read_labelled(touch(tmp_path / "a.csv", data.encode()))
    assert "a.csv" in str(caught.value)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    touch(tmp_path / "lone.png")
    with pytest.raises(InputError, match="no labelled images"):
        read_labelled(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_labelled(tmp_path / "none.csv")


# The record, its forms, and the page

HOSTILE = '<script>alert("&1")</script>\'\u202e{x}'


@pytest.fixture(scope="module")
def measured(built_store: Callable[[str], Path]) -> Evaluation:
    """The built-in model on its samples: real figures of every kind."""
    right = builtin.sample_labels()
    with LabelIndex.open("emoji", store=built_store("emoji-clip")) as index:
        embeddings, labels = index.embed(builtin.samples()), index.labels
        matrix, scale = np.asarray(index.embeddings), index.info.logit_scale
    row = {label: at for at, label in enumerate(labels)}
    targets = np.array([row[right[path.name]] for path in builtin.samples()])
    truth = Truth.of(40, len(labels), np.arange(40), targets)
    fit = fit_temperature(matrix, embeddings, targets, logit_scale=scale)

    def probabilities(scale: float) -> tuple[np.ndarray, np.ndarray]:
        found = scan(matrix, embeddings, 5, logit_scale=scale)
        return found.rows, activate(found.similarities * scale, "softmax", found.log_partition)

    rows, before = probabilities(scale)
    _, after = probabilities(fit.scale)
    first = metrics.hits_within(rows, truth, 1)
    top1, top5 = metrics.accuracy(first), metrics.accuracy(metrics.hits_within(rows, truth, 5))
    worst = tuple(
        record.WorstImage(
            builtin.samples()[at].name,
            (labels[targets[at]],),
            0.01,
            labels[rows[at, 0]],
            float(after[at, 0]),
            None if place else "data:image/png;base64,iVBORw0KGgo=",
        )
        for place, at in enumerate(np.flatnonzero(~first)[:4])
    )
    assert (fit.ece_before, fit.ece) == pytest.approx(
        (reliability(before[:, 0], first).error, reliability(after[:, 0], first).error), abs=1e-3
    )
    return Evaluation(
        index="emoji",
        model="builtin:clip",
        labels=len(labels),
        source="samples",
        date="2026-01-31",
        counts=record.InputCounts(43, 40, missing=2, ignored=1),
        top1=top1,
        top5=top5,
        calibration=record.CalibrationFigures(
            1,
            reliability(before[:, 0], first),
            reliability(after[:, 0], first),
            "Fitted on these images.",
        ),
        ranks=(record.RankFigure("group", 9, top5), record.RankFigure("label", 1_623, top1)),
        multi_label=record.MultiLabel(0.5, metrics.F1(0.4, 0.3, 40), "0.3 for every label"),
        coverage=record.Coverage(0.9, top5, 12.5, 9.0, 0.0),
        confusions=tuple(
            record.Confusion(labels[one], labels[other], number)
            for one, other, number in metrics.confusions(targets, rows[:, 0], 5)
        ),
        worst=worst,
        template_sets=(
            record.TemplateSet("default", ("This is a photo of {}.",), top1, top5, 0.2),
            record.TemplateSet("bare", ("{}", "a {}"), top1, top5, 0.1),
        ),
    )


@pytest.fixture
def hostile(measured: Evaluation) -> Evaluation:
    """The same with text from outside that is out to break the page."""
    name = HOSTILE
    return dataclasses.replace(
        measured,
        index=name,
        model=name,
        source=name,
        date=name,
        calibration=dataclasses.replace(measured.calibration, note=name),
        ranks=(dataclasses.replace(measured.ranks[0], rank=name),),
        multi_label=dataclasses.replace(measured.multi_label, thresholds=name),
        confusions=(record.Confusion(name, name, 3),),
        worst=(record.WorstImage(name, (name, name), 0.1, name, 0.9, f'data:image/png,"{name}'),),
        template_sets=(
            dataclasses.replace(measured.template_sets[0], name=name, templates=(name,)),
        ),
    )


@pytest.fixture
def bare(measured: Evaluation) -> Evaluation:
    """The same without anything that is optional."""
    return Evaluation(
        "emoji", None, 9, "samples", "2026-01-31", record.InputCounts(40, 40), measured.top1,
        measured.top5, record.CalibrationFigures(5, measured.calibration.before),
    )  # fmt: skip


class Outline(html.parser.HTMLParser):
    """Checks that tags are closed in order; gathers ids, attributes and text."""

    VOID = frozenset({"meta", "img", "rect", "path", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


@pytest.mark.parametrize("name", ["measured", "hostile", "bare"])
def test_the_page_is_sound_and_complete_in_itself(
    name: str, request: pytest.FixtureRequest
) -> None:
    page = evaluation.render_page(request.getfixturevalue(name))
    found = outline(page)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert "url(" not in page
    assert "@import" not in page
    for tag, attribute, value in found.attributes:
        assert not attribute.startswith("on")
        if attribute in ("src", "href", "srcset"):
            assert (value or "").startswith("data:image/"), tag
    ids = [value for _, attribute, value in found.attributes if attribute == "id"]
    assert len(ids) == len(set(ids))
    named = {v for _, attribute, v in found.attributes if attribute == "aria-labelledby"}
    assert named <= set(ids)
    alts = [
        value for tag, attribute, value in found.attributes if (tag, attribute) == ("img", "alt")
    ]
    assert len(alts) == found.tags.count("img")
    assert all(alts)


def test_the_page_shows_text_from_outside_as_it_is(hostile: Evaluation) -> None:
    page = evaluation.render_page(hostile)
    assert "<script" not in page
    # Title, heading, model, source, date, note, threshold, rank, pair, name of a set and its
    # template, the image's name, what it is taken for, and twice what it is.
    assert outline(page).text.count(HOSTILE) == 16


def test_the_page_shows_the_figures(measured: Evaluation) -> None:
    found = outline(evaluation.render_page(measured))
    for words in ("62.5 %", "Coverage of 90 % sets", "12.5 labels per set", "Before calibration",
                  "After calibration", "0.3 for every label", "and 1 more", "no picture",
                  "No such file"):  # fmt: skip
        assert words in found.text
    assert "Images that cannot be read" not in found.text
    assert found.tags.count("svg") == 2 + 3 + 2 + 2
    bins = [len(one.bins) for one in (measured.calibration.before, measured.calibration.after)]
    assert found.tags.count("g") == sum(bins)


def test_the_bare_page_leaves_out_what_is_not_there(bare: Evaluation) -> None:
    found = outline(evaluation.render_page(bare))
    for words in ("Ranks", "Template sets", "Confusions", "Worst images", "Coverage", "F1"):
        assert words not in found.text
    assert "5 most probable labels" in found.text
    assert "not calibrated" in found.text
    assert "imported embeddings" in found.text


def test_json_has_everything_but_pictures(measured: Evaluation) -> None:
    out = io.StringIO()
    report.write(measured, "json", out)
    read = json.loads(out.getvalue())
    assert read["top1"]["value"] == 0.625
    assert read["calibration"]["after"]["error"] == measured.calibration.after.error
    assert read["counts"]["given"] == 43
    assert read["confusions"][0].keys() == {"true", "predicted", "images"}
    assert [image["name"] for image in read["worst"]] == [image.name for image in measured.worst]
    assert "thumbnail" not in out.getvalue()
    assert measured.worst[0].thumbnail is not None
    assert read.keys() == {field.name for field in dataclasses.fields(Evaluation)}


def test_table(measured: Evaluation, bare: Evaluation) -> None:
    out = io.StringIO()
    report.write(measured, "table", out)
    text = out.getvalue()
    assert re.search(r"top-1 +62\.5 % +[\d.]+ % to [\d.]+ % +40", text)
    for words in ("top-1, group", "ECE, calibrated", "coverage of 90 % sets", "F1, macro", "bare"):
        assert words in text
    assert text.endswith("43 given: 40 evaluated, 2 missing, 1 ignored.\n")
    out = io.StringIO()
    report.write(bare, "table", out)
    assert "calibrated" not in out.getvalue()
    assert out.getvalue().endswith("40 given: 40 evaluated.\n")


def test_html_is_the_page(measured: Evaluation) -> None:
    out = io.StringIO()
    report.write(measured, "html", out)
    assert out.getvalue() == evaluation.render_page(measured)


def test_page_in_a_browser(hostile: Evaluation, tmp_path: Path) -> None:
    shown = in_a_browser(evaluation.render_page(hostile), tmp_path)
    assert "<script" not in shown
    assert shown.count("<section") == 7
    assert "Worst images" in shown
