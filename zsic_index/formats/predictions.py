"""Predictions as a table, JSON, JSONL or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

from zsic_index.records import NodePrediction, Prediction

if TYPE_CHECKING:
    pass
from zsic_index.formats.text import _console, percent, write_columns

Answer = Prediction | NodePrediction


class Classified(NamedTuple):
    """What is said of one image.

    Attributes:
        image: its name.
        predictions: best first.
        reason: why there is none, where that was decided.
    """

    image: str
    predictions: Sequence[Answer]
    reason: str | None = None


FORMATS = ("table", "json", "jsonl", "csv")

_FIELDS = ("label", "probability", "logit", "similarity", "label_id", "index_probability")

_INTERVAL = ("probability_low", "probability_high")

_NODE_FIELDS = ("label", "probability", "rank", "key", "path")

NONE = "(none of these)"
"""The label of an image that shows none of them."""

PATH = " > "
"""Between the names of a path."""

_BAR_WIDTH = 12


def write(results: Iterable[Classified], format: str, out: TextIO, *, nodes: bool = False) -> None:
    """Write results in one of FORMATS as they come; only ``json`` and ``table`` wait for the last.

    A table shows ``index_probability`` and ``interval`` only where there are such. ``json`` is one
    list of ``{"image": ..., "predictions": [...]}``; ``jsonl`` one such object a line; ``csv`` one
    line per prediction with the image and its rank.

    Args:
        results: what to write.
        format: one of FORMATS.
        out: where.
        nodes: whether predictions are of nodes.
    """
    (_NODE_WRITERS if nodes else _WRITERS)[format](results, out)


def _record(result: Classified) -> dict[str, Any]:
    found: dict[str, Any] = {
        "image": result.image,
        "predictions": [asdict(prediction) for prediction in result.predictions],
    }
    return found if result.reason is None else found | {"none_of_these": result.reason}


def _write_json(results: Iterable[Classified], out: TextIO) -> None:
    json.dump([_record(result) for result in results], out, ensure_ascii=False, indent=2)
    out.write("\n")


def _write_jsonl(results: Iterable[Classified], out: TextIO) -> None:
    for result in results:
        out.write(json.dumps(_record(result), ensure_ascii=False) + "\n")
        out.flush()


def _write_csv(results: Iterable[Classified], out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image", "rank", *_FIELDS, *_INTERVAL))
    for image, predictions, reason in results:
        if reason is not None:
            writer.writerow((image, 0, NONE, *[None] * (len(_FIELDS) + len(_INTERVAL) - 1)))
        for rank, prediction in enumerate(predictions, start=1):
            assert isinstance(prediction, Prediction)
            values = (getattr(prediction, field) for field in _FIELDS)
            writer.writerow((image, rank, *values, *(prediction.interval or (None, None))))
        out.flush()


def _write_table(results: Iterable[Classified], out: TextIO) -> None:
    # rich takes a while to import.
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("label", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=_BAR_WIDTH)
    table.add_column("similarity", justify="right", no_wrap=True)
    listed = [(image, cast("list[Prediction]", found), reason) for image, found, reason in results]
    estimated = any(p.interval is not None for _, found, _ in listed for p in found)
    if estimated:
        table.add_column("95 % interval", justify="right", no_wrap=True)
    over_index = any(p.index_probability is not None for _, found, _ in listed for p in found)
    if over_index:
        table.add_column("over the index", justify="right", no_wrap=True)
    for image, predictions, reason in listed:
        if reason is not None:
            table.add_row(Text(image), Text(f"{NONE}: {reason}"))
        for rank, prediction in enumerate(predictions):
            table.add_row(
                # Text, so that brackets in names are not taken for markup.
                Text(image if rank == 0 else ""),
                Text(prediction.label),
                percent(prediction.probability),
                "█" * round(prediction.probability * _BAR_WIDTH),
                f"{prediction.similarity:.4f}",
                *([_span(prediction.interval)] if estimated else []),
                *([_percent_or_nothing(prediction.index_probability)] if over_index else []),
                end_section=len(predictions) > 1 and rank == len(predictions) - 1,
            )
    _console(out).print(table)


def _percent_or_nothing(probability: float | None) -> str:
    return "" if probability is None else percent(probability)


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


def _write_node_csv(results: Iterable[Classified], out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image", "place", *_NODE_FIELDS))
    for image, predictions, _ in results:
        for place, node in enumerate(predictions, start=1):
            assert isinstance(node, NodePrediction)
            path = PATH.join(node.path)
            writer.writerow((image, place, node.label, node.probability, node.rank, node.key, path))
        out.flush()


def _write_node_table(results: Iterable[Classified], out: TextIO) -> None:
    rows = []
    for image, predictions, _ in results:
        for place, node in enumerate(predictions):
            assert isinstance(node, NodePrediction)
            shown = image if place == 0 else ""
            bar = "█" * round(node.probability * _BAR_WIDTH)
            path = PATH.join(node.path[:-1])
            rows.append([shown, node.label, percent(node.probability), bar, node.rank or "", path])
        if not predictions:
            rows.append([image, "(nothing is probable enough)", "", "", "", ""])
    write_columns(["image", "label", "probability", "", "rank", "path"], rows, out)


_WRITERS = {
    "table": _write_table,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
}
_NODE_WRITERS = _WRITERS | {"table": _write_node_table, "csv": _write_node_csv}
