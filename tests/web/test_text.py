"""Numbers as the pages print them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zsic_index.formats.text import percent
from zsic_index.web.static import SHARED_MODULES


def in_javascript(browser: Any, probabilities: list[float]) -> list[str]:
    """Return the percentages that the module of both pages prints."""
    source = Path(SHARED_MODULES / "text.js").read_text(encoding="utf-8")
    page = browser.new_page()
    try:
        texts: list[str] = page.evaluate(
            """async ([source, probabilities]) => {
                const url = `data:text/javascript,${encodeURIComponent(source)}`;
                const { percent } = await import(url);
                return probabilities.map(percent);
            }""",
            [source, probabilities],
        )
    finally:
        page.close()
    return texts


def test_percent_prints_the_digits_of_python(browser: Any, rng: np.random.Generator) -> None:
    # Ties between two last digits, the limits of each form and their neighbours, and any others.
    ties = np.arange(0, 10_001) / 10_000
    quarters = (np.arange(0, 101) + 0.25) / 100
    limits = np.array(
        [0.0, 1e-6, 9.5e-6, 1e-4, 9.5e-4, 9.99e-4, 1e-3, 0.9995, 0.99949, 1.0, 5e-324]
    )
    others = np.concatenate([rng.random(2_000), 10 ** rng.uniform(-9, 0, 2_000)])
    near = np.concatenate([np.nextafter(limits, 0), np.nextafter(limits, 1)])
    probabilities = np.concatenate([ties, quarters, limits, near, others]).tolist()
    printed = [text.replace("\u00a0", " ") for text in in_javascript(browser, probabilities)]
    assert printed == [percent(probability) for probability in probabilities]
