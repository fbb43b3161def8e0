"""Tables and machine-readable formats."""

from __future__ import annotations

import csv
import io
import json

import pytest

from zsic_index.formats.predictions import CSV_COLUMNS, ImagePredictions, write_predictions
from zsic_index.formats.text import percent, short_percent, write_columns
from zsic_index.records import NodePrediction, Prediction

FIRST = Prediction("[bold]cat[/bold]", 0.75, 20.5, 0.3125, 4)
SECOND = Prediction('a "quoted", name', 2e-7, -0.5, -0.0078125, 9)
RESULTS = [
    ImagePredictions("one [x].png", [FIRST, SECOND]),
    ImagePredictions("two.png", [SECOND]),
]


def written(format: str) -> str:
    out = io.StringIO()
    write_predictions(iter(RESULTS), format, out)
    return out.getvalue()


def test_json_keeps_every_digit() -> None:
    first, second = json.loads(written("json"))
    assert first["image"] == "one [x].png"
    assert first["predictions"][1] == {
        "label": 'a "quoted", name',
        "probability": 2e-7,
        "logit": -0.5,
        "similarity": -0.0078125,
        "label_id": 9,
        "index_probability": None,
        "interval": None,
    }
    assert len(second["predictions"]) == 1


def test_jsonl_is_one_object_a_line() -> None:
    assert [json.loads(line) for line in written("jsonl").splitlines()] == json.loads(
        written("json")
    )


def test_csv_quotes_names() -> None:
    rows = list(csv.reader(io.StringIO(written("csv"))))
    assert ",".join(rows[0]) == (
        "image,rank,label,probability,logit,similarity,label_id,index_probability,"
        "probability_low,probability_high"
    )
    assert rows[2][:3] == ["one [x].png", "2", 'a "quoted", name']
    assert rows[2][3:] == ["2e-07", "-0.5", "-0.0078125", "9", "", "", ""]
    assert len(rows) == 4


def test_csv_has_a_line_for_an_image_without_an_accepted_label() -> None:
    out = io.StringIO()
    write_predictions([ImagePredictions("x.png", [], "too close")], "csv", out)
    assert out.getvalue().splitlines()[1:] == ["x.png,0,(none of these),,,,,,,"]


def test_csv_of_nodes() -> None:
    nodes = [
        NodePrediction("corvids", 0.5, "family", "birds/corvids", ("birds", "corvids")),
        NodePrediction("(none)", 0.25, None, None, ()),
    ]
    out = io.StringIO()
    images = [ImagePredictions("x.png", nodes), ImagePredictions("y.png", [])]
    write_predictions(images, "csv", out, nodes=True)
    assert out.getvalue().splitlines() == [
        "image,place,label,probability,rank,key,path",
        "x.png,1,corvids,0.5,family,birds/corvids,birds > corvids",
        "x.png,2,(none),0.25,,,",
    ]


def test_csv_columns_are_those_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CSV_COLUMNS, "per_mille", lambda line: line.prediction.probability * 1000)
    rows = list(csv.DictReader(io.StringIO(written("csv"))))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert rows[0]["per_mille"] == "750.0"


def test_table_takes_no_name_for_markup() -> None:
    table = written("table")
    assert "[bold]cat[/bold]" in table
    assert "one [x].png" in table
    assert "75.0 %   █████████" in table


@pytest.mark.parametrize("format", ["json", "jsonl", "csv", "table"])
def test_no_results(format: str) -> None:
    out = io.StringIO()
    write_predictions(iter([]), format, out)
    if format == "json":
        assert json.loads(out.getvalue()) == []


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (1.0, "100.0 %"),
        (0.0012, "0.1 %"),
        (0.00042, "0.04 %"),
        (2e-6, "0.0002 %"),
        (1e-9, "< 0.0001 %"),
        (0.0, "0.0 %"),
    ],
)
def test_percent(probability: float, text: str) -> None:
    assert percent(probability) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.9, "90 %"), (0.975, "97.5 %"), (0.29, "29 %"), (1.0, "100 %")]
)
def test_short_percent(share: float, text: str) -> None:
    assert short_percent(share) == text


def test_columns_in_a_pipe_are_not_folded() -> None:
    out = io.StringIO()
    write_columns(["name", "value"], [["x" * 120, "y" * 60]], out)
    assert any("x" * 120 in line and "y" * 60 in line for line in out.getvalue().splitlines())
