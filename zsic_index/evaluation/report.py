"""An evaluation written as a text table, as JSON, or as an HTML page."""

from __future__ import annotations

import json
from typing import TextIO

from zsic_index.evaluation.metrics import Figure
from zsic_index.evaluation.page import render_page
from zsic_index.evaluation.record import Evaluation, as_dict
from zsic_index.formats.text import percent, short_percent, write_columns

FORMATS = ("table", "json", "html")


def write(evaluation: Evaluation, format: str, out: TextIO) -> None:
    """Write an evaluation in one of FORMATS."""
    _WRITERS[format](evaluation, out)


def _write_json(evaluation: Evaluation, out: TextIO) -> None:
    json.dump(as_dict(evaluation), out, ensure_ascii=False, allow_nan=False, indent=2)
    out.write("\n")


def _write_page(evaluation: Evaluation, out: TextIO) -> None:
    out.write(render_page(evaluation))


def _write_table(evaluation: Evaluation, out: TextIO) -> None:
    write_columns(["figure", "value", "95 % interval", "images"], _figures(evaluation), out)
    if evaluation.template_sets:
        write_columns(
            ["template set", "top-1", "top-5", "ECE"],
            [
                [
                    template_set.name,
                    percent(template_set.top1.value),
                    percent(template_set.top5.value),
                    percent(template_set.ece),
                ]
                for template_set in evaluation.template_sets
            ],
            out,
        )
    if evaluation.confusions:
        write_columns(
            ["right label", "taken for", "images"],
            [
                [confusion.true, confusion.predicted, f"{confusion.images:,}"]
                for confusion in evaluation.confusions
            ],
            out,
        )
    counts = evaluation.counts
    left_out = {
        "repeated": counts.repeated,
        "missing": counts.missing,
        "unlabelled": counts.unlabelled,
        "ignored": counts.ignored,
        "refused": counts.refused,
        "of unknown labels": counts.unknown,
    }
    outcomes = "".join(f", {number:,} {name}" for name, number in left_out.items() if number)
    out.write(f"{counts.given:,} given: {counts.evaluated:,} evaluated{outcomes}.\n")


def _figures(evaluation: Evaluation) -> list[list[str]]:
    """Return a row of name, value, interval and number of images for each figure."""
    rows = [_row("top-1", evaluation.top1), _row("top-5", evaluation.top5)]
    for name, figure in (
        ("top-1, calibrated", evaluation.calibrated_top1),
        ("top-5, calibrated", evaluation.calibrated_top5),
    ):
        if figure is not None:
            rows.append(_row(name, figure))
    rows += [_row(f"top-1, {rank.rank}", rank.accuracy) for rank in evaluation.ranks]
    if (multi_label := evaluation.multi_label) is not None:
        rows += [
            ["mAP", percent(multi_label.mean_average_precision), "", ""],
            ["F1, micro", percent(multi_label.f1.micro), "", ""],
            ["F1, macro", percent(multi_label.f1.macro), "", ""],
        ]
    calibration = evaluation.calibration
    rows.append(["ECE", percent(calibration.before.error), "", f"{calibration.before.answers:,}"])
    if (after := calibration.after) is not None:
        rows.append(["ECE, calibrated", percent(after.error), "", f"{after.answers:,}"])
    if (coverage := evaluation.coverage) is not None:
        rows.append(_row(f"coverage of {short_percent(coverage.wanted)} sets", coverage.found))
        rows.append(["labels per set", f"{coverage.mean_size:,.1f}", "", ""])
    return rows


def _row(name: str, figure: Figure) -> list[str]:
    interval = f"{percent(figure.low)} to {percent(figure.high)}"
    return [name, percent(figure.value), interval, f"{figure.images:,}"]


_WRITERS = {"table": _write_table, "json": _write_json, "html": _write_page}
