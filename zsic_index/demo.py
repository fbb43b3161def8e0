"""The demo: the built-in models on the built-in pictures, and a page to look at."""

from __future__ import annotations

import base64
import html
import time
from dataclasses import dataclass
from pathlib import Path

from zsic_index import builtin
from zsic_index.embeddings.labels import Progress
from zsic_index.formats.html import document
from zsic_index.formats.text import percent
from zsic_index.label_index import LabelIndex
from zsic_index.records import BuildReport, Prediction

TEMPLATES = "default"

TOP_K = 5

NEXT_STEPS = """\
The same with a model from the Hub, on your own labels and photos:

  zsic-index build labels.txt --model openai/clip-vit-large-patch14 --name mine
  zsic-index query ~/Pictures --name mine"""


@dataclass(frozen=True, slots=True)
class DemoItem:
    """One sample picture.

    Attributes:
        image: its path.
        expected: its right label.
        predictions: the TOP_K most probable labels, best first.
    """

    image: Path
    expected: str
    predictions: list[Prediction]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo did.

    Attributes:
        model: the built-in model.
        report: what the build did.
        items: the sample pictures.
        query_seconds: wall time of classifying them all, the model's loading included.
    """

    model: str
    report: BuildReport
    items: list[DemoItem]
    query_seconds: float


def run(
    model: str, *, store: str | Path | None = None, progress: Progress | None = None
) -> DemoResult:
    """Build the index ``demo-clip`` or ``demo-siglip`` and classify the sample pictures."""
    name = "demo-" + model.removeprefix(builtin.PREFIX)
    with LabelIndex.build(
        builtin.emoji_labels(),
        model=model,
        templates=TEMPLATES,
        name=name,
        store=store,
        device="cpu",
        progress=progress,
    ) as index:
        started = time.perf_counter()
        found = index.classify(builtin.samples(), top_k=TOP_K)
        seconds = time.perf_counter() - started
        assert index.report is not None, "a built index has a report"
        report = index.report
    expected = builtin.sample_labels()
    items = [
        DemoItem(path, expected[path.name], predictions)
        for path, predictions in zip(builtin.samples(), found, strict=True)
    ]
    return DemoResult(model, report, items, seconds)


def summary(result: DemoResult) -> str:
    """Say in two lines what was done and how often it was right."""
    report = result.report
    first = sum(item.predictions[0].label == item.expected for item in result.items)
    among = sum(
        item.expected in [prediction.label for prediction in item.predictions]
        for item in result.items
    )
    return (
        f"{report.labels:,} labels: {report.encoded_labels:,} encoded, "
        f"{report.reused_labels:,} from the store, in {report.seconds:.1f} s. "
        f"{len(result.items)} pictures in {result.query_seconds:.1f} s.\n"
        f"Right label first: {first} of {len(result.items)}; "
        f"among the first {TOP_K}: {among}. "
        f"{result.model} is a small model that knows emoji drawings only."
    )


def render_page(result: DemoResult) -> str:
    """Return one HTML page, complete in itself, with the pictures and their bars."""
    cards = "\n".join(_card(item) for item in result.items)
    lines = "<br>".join(html.escape(line) for line in summary(result).splitlines())
    body = f"""<header>
<h1>zsic-index demo <small>{html.escape(result.model)}</small></h1>
<p>{lines}</p>
<p>Probabilities are over all {result.report.labels:,} labels. A green name is the right one.</p>
</header>
<main>
{cards}
</main>
<footer><pre>{html.escape(NEXT_STEPS)}</pre></footer>"""
    return document(f"zsic-index demo: {result.model}", _STYLE, body)


def _card(item: DemoItem) -> str:
    kind = "png" if item.image.suffix == ".png" else "jpeg"
    data = base64.b64encode(item.image.read_bytes()).decode()
    bars = "\n".join(_bar(prediction, item.expected) for prediction in item.predictions)
    return f"""<figure>
<img alt="{html.escape(item.expected)}" src="data:image/{kind};base64,{data}">
<figcaption>{html.escape(item.image.name)}</figcaption>
<ol>
{bars}
</ol>
</figure>"""


def _bar(prediction: Prediction, expected: str) -> str:
    right = ' class="right"' if prediction.label == expected else ""
    width = f"{prediction.probability * 100:.2f}%"
    return (
        f"<li{right}><span>{html.escape(prediction.label)}</span>"
        f"<b>{percent(prediction.probability)}</b>"
        f'<i style="width:{width}"></i></li>'
    )


_STYLE = """
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); }
ol { list-style: none; margin: 0; padding: 0; }
li { display: grid; grid-template-columns: 1fr auto; gap: 0 .5rem; padding: .15rem 0; }
li span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
li b { font-variant-numeric: tabular-nums; font-weight: 400; }
li i { background: var(--bar); border-radius: 2px; grid-column: 1 / -1; height: 4px;
  min-width: 1px; }
li.right span { color: var(--right); font-weight: 600; } li.right i { background: var(--right); }
pre { background: #8882; border-radius: .5rem; overflow-x: auto; padding: .75rem; }
"""
