"""Demo: a built-in model classifies the built-in pictures; the result is an HTML page."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path

from zsic_index import builtin
from zsic_index.embeddings.labels import ProgressCallback
from zsic_index.formats.html import render
from zsic_index.label_index import LabelIndex
from zsic_index.records import BuildReport, Prediction

TEMPLATES = "default"

TOP_K = 5

NEXT_STEPS = """\
The same with a model from the Hub, on your own labels and photos:

  zsic-index build labels.txt --model openai/clip-vit-large-patch14 --name mine
  zsic-index query ~/Pictures --name mine"""


@dataclass(frozen=True, slots=True)
class DemoPicture:
    """A sample picture with its predictions.

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
    """Predictions for all sample pictures, with timings.

    Attributes:
        model: name of the built-in model.
        report: report of the index build.
        pictures: the sample pictures, in the order of their file names.
        query_seconds: wall time of classifying all pictures, including loading the model.
    """

    model: str
    report: BuildReport
    pictures: list[DemoPicture]
    query_seconds: float


def run(
    model: str, *, store: str | Path | None = None, progress: ProgressCallback | None = None
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
        runtime="torch",  # an ONNX tower takes longer to write than forty pictures take
        progress=progress,
    ) as index:
        started = time.perf_counter()
        predictions = index.classify(builtin.samples(), top_k=TOP_K)
        seconds = time.perf_counter() - started
        assert index.report is not None, "a built index has a report"
        report = index.report
    expected = builtin.sample_labels()
    pictures = [
        DemoPicture(path, expected[path.name], best)
        for path, best in zip(builtin.samples(), predictions, strict=True)
    ]
    return DemoResult(model, report, pictures, seconds)


def summary(result: DemoResult) -> str:
    """Return two lines: size and time of the demo, and how often the right label came first."""
    report = result.report
    first = sum(picture.predictions[0].label == picture.expected for picture in result.pictures)
    among = sum(
        picture.expected in [prediction.label for prediction in picture.predictions]
        for picture in result.pictures
    )
    return (
        f"{report.labels:,} labels: {report.encoded_labels:,} encoded, "
        f"{report.reused_labels:,} from the store, in {report.seconds:.1f} s. "
        f"{len(result.pictures)} pictures in {result.query_seconds:.1f} s.\n"
        f"Right label first: {first} of {len(result.pictures)}; "
        f"among the first {TOP_K}: {among}. "
        f"{result.model} is a small model that knows emoji drawings only."
    )


def render_page(result: DemoResult) -> str:
    """Return the pictures with their predictions as a self-contained HTML page."""
    return render(
        "demo.html",
        result=result,
        summary=summary(result).splitlines(),
        sources=[_data_uri(picture.image) for picture in result.pictures],
        next_steps=NEXT_STEPS,
    )


def _data_uri(image: Path) -> str:
    kind = "png" if image.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image.read_bytes()).decode()}"
