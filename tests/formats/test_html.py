"""The templates of the HTML pages."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from zsic_index.formats.html import render


def test_a_missing_variable_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'result' is undefined"):
        render("demo.html")
