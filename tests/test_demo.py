"""The demo and its page, the page in a real browser where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browsers import in_a_browser
from zsic_index import demo


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoResult:
    return demo.run("builtin:clip", store=tmp_path_factory.mktemp("demo") / "store.db")


def test_the_right_label_is_often_first(result: demo.DemoResult) -> None:
    assert len(result.items) == 40
    assert sum(item.predictions[0].label == item.expected for item in result.items) >= 20


def test_summary_counts(result: demo.DemoResult) -> None:
    first = sum(item.predictions[0].label == item.expected for item in result.items)
    assert f"Right label first: {first} of 40" in demo.summary(result)


def test_page_is_complete_in_itself(result: demo.DemoResult) -> None:
    page = demo.render_page(result)
    assert "http://" not in page
    assert "https://" not in page
    assert page.count('src="data:image/') == 40
    assert page.count("<li") == 40 * demo.TOP_K


def test_page_in_a_browser(result: demo.DemoResult, tmp_path: Path) -> None:
    shown = in_a_browser(demo.render_page(result), tmp_path)
    assert shown.count("<figure>") == 40
    assert "zsic-index demo" in shown
