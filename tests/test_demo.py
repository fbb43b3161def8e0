"""The demo and its page, the page in a real browser where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.browsers import in_a_browser
from zsic_index import demo


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoResult:
    return demo.run("builtin:clip", store=tmp_path_factory.mktemp("demo") / "store.db")


def test_the_right_label_is_often_first(result: demo.DemoResult) -> None:
    assert len(result.pictures) == 40
    assert (
        sum(picture.predictions[0].label == picture.expected for picture in result.pictures) >= 20
    )


def test_summary_counts(result: demo.DemoResult) -> None:
    first = sum(picture.predictions[0].label == picture.expected for picture in result.pictures)
    assert f"Right label first: {first} of 40" in demo.summary(result)


def test_page_is_complete_in_itself(result: demo.DemoResult) -> None:
    page = demo.render_page(result)
    assert "http://" not in page
    assert "https://" not in page
    assert page.count('src="data:image/') == 40
    assert page.count("<li") == 40 * demo.TOP_K


def test_page_escapes_labels(result: demo.DemoResult) -> None:
    script = "<script>alert(1)</script>"
    picture = result.pictures[0]
    prediction = replace(picture.predictions[0], label=script)
    hostile = replace(
        result, model=script, pictures=[replace(picture, expected=script, predictions=[prediction])]
    )
    page = demo.render_page(hostile)
    assert "<script" not in page
    # Title, heading, summary, the picture's text and its label.
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5


def test_page_in_a_browser(result: demo.DemoResult, tmp_path: Path) -> None:
    dom = in_a_browser(demo.render_page(result), tmp_path)
    assert dom.count("<figure>") == 40
    assert "zsic-index demo" in dom
