"""An evaluation as JSON, as a table and as a page, the page in a browser too."""

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

from tests.support.browsers import in_a_browser
from zsic_index import LabelIndex, builtin, evaluation
from zsic_index.calibration import fit_temperature
from zsic_index.calibration.reliability import reliability
from zsic_index.calibration.truth import Truth
from zsic_index.evaluation import metrics, record, report
from zsic_index.evaluation.record import Evaluation
from zsic_index.scan.exact import scan
from zsic_index.scan.probabilities import activate

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
