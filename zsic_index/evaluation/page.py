"""An evaluation as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zsic_index.evaluation.diagram import ReliabilityDiagram, lay_out
from zsic_index.evaluation.metrics import Figure
from zsic_index.evaluation.record import CalibrationFigures, Evaluation, InputCounts
from zsic_index.formats.html import render
from zsic_index.formats.text import percent, short_percent


@dataclass(frozen=True, slots=True)
class _Card:
    """A figure of the headline, with its interval where it has one, and a note below it."""

    name: str
    value: float
    figure: Figure | None = None
    note: str = ""


def render_page(evaluation: Evaluation) -> str:
    """Return an evaluation as an HTML page."""
    return render(
        "evaluation.html",
        evaluation=evaluation,
        cards=list(_cards(evaluation)),
        diagrams=list(_diagrams(evaluation.calibration)),
        counts=_outcomes(evaluation.counts),
    )


def _cards(evaluation: Evaluation) -> Iterator[_Card]:
    yield _measured("Right label first", evaluation.top1)
    yield _measured("Among the first five", evaluation.top5)
    if evaluation.calibrated_top1 is not None and evaluation.calibrated_top5 is not None:
        yield _measured("Right label first, calibrated", evaluation.calibrated_top1)
        yield _measured("Among the first five, calibrated", evaluation.calibrated_top5)
    before, after = evaluation.calibration.before, evaluation.calibration.after
    if after is None:
        yield _Card("Calibration error", before.error, note="not calibrated")
    else:
        yield _Card("Calibration error", after.error, note=f"{percent(before.error)} before")
    if (coverage := evaluation.coverage) is not None:
        size = f"{coverage.mean_size:,.1f} labels per set, median {coverage.median_size:,g}"
        yield _measured(f"Coverage of {short_percent(coverage.wanted)} sets", coverage.found, size)
    if (multi_label := evaluation.multi_label) is not None:
        f1 = multi_label.f1
        labels = f"over {f1.labels:,} labels"
        yield _Card("Mean average precision", multi_label.mean_average_precision, note=labels)
        yield _Card("F1 over all pairs", f1.micro, note=f"threshold {multi_label.thresholds}")
        yield _Card("F1, mean of labels", f1.macro, note=labels)


def _measured(name: str, figure: Figure, note: str = "") -> _Card:
    return _Card(name, figure.value, figure, note)


def _diagrams(calibration: CalibrationFigures) -> Iterator[ReliabilityDiagram]:
    if calibration.after is None:
        yield lay_out(calibration.before, "without calibration")
    else:
        yield lay_out(calibration.before, "before calibration")
        yield lay_out(calibration.after, "after calibration")


def _outcomes(counts: InputCounts) -> list[tuple[str, int]]:
    """Return the counts that are not zero with their descriptions."""
    outcomes = [
        ("Evaluated", counts.evaluated),
        ("Rows that repeat an image", counts.repeated),
        ("No such file", counts.missing),
        ("Without a label", counts.unlabelled),
        ("Not an image", counts.ignored),
        ("Images that cannot be read", counts.refused),
        ("Labels that the index does not have", counts.unknown),
    ]
    return [(name, images) for name, images in outcomes if images]
