"""Writers of predictions: a table for people, JSON, JSONL and CSV for programs.

To add a column to ``query --format csv``, add an entry to ``CSV_COLUMNS`` (``NODE_CSV_COLUMNS`` for
``--rank`` and ``--deepest``). To add an output format, add its two writers to ``_WRITERS`` at the
end of this module: ``--format`` offers whatever is there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Generic, NamedTuple, TextIO, TypeVar, cast

from zsic_index.formats.text import make_console, percent, write_columns
from zsic_index.records import NodePrediction, Prediction

NONE = "(none of these)"
"""Label in the output for an image that none of the labels is accepted for."""

PATH_SEPARATOR = " > "
"""Separator of the names in a path."""

_BAR_WIDTH = 12
"""Width in characters of the bar for a probability of 1."""

P = TypeVar("P", Prediction, NodePrediction)


class ImagePredictions(NamedTuple):
    """Predictions for one image.

    Attributes:
        image: name of the image.
        predictions: best first.
        reason: reason why no label is accepted; None where some are.
    """

    image: str
    predictions: Sequence[Prediction | NodePrediction]
    reason: str | None = None


class CsvLine(NamedTuple, Generic[P]):
    """One line of CSV output.

    Attributes:
        image: name of the image.
        rank: position among the image's predictions, from 1.
        prediction: the label or node.
    """

    image: str
    rank: int
    prediction: P


CSV_COLUMNS: dict[str, Callable[[CsvLine[Prediction]], object]] = {
    "image": lambda line: line.image,
    "rank": lambda line: line.rank,
    "label": lambda line: line.prediction.label,
    "probability": lambda line: line.prediction.probability,
    "logit": lambda line: line.prediction.logit,
    "similarity": lambda line: line.prediction.similarity,
    "label_id": lambda line: line.prediction.label_id,
    "index_probability": lambda line: line.prediction.index_probability,
    "probability_low": lambda line: (line.prediction.interval or (None, None))[0],
    "probability_high": lambda line: (line.prediction.interval or (None, None))[1],
}
"""Columns of the CSV of labels, in order: name → function from a line to its value.

None leaves the cell empty. An image without an accepted label has a line with rank 0, ``NONE`` as
the label, and all other cells empty.
"""

NODE_CSV_COLUMNS: dict[str, Callable[[CsvLine[NodePrediction]], object]] = {
    "image": lambda line: line.image,
    "place": lambda line: line.rank,  # "rank" is the rank of the node
    "label": lambda line: line.prediction.label,
    "probability": lambda line: line.prediction.probability,
    "rank": lambda line: line.prediction.rank,
    "key": lambda line: line.prediction.key,
    "path": lambda line: PATH_SEPARATOR.join(line.prediction.path),
}
"""Columns of the CSV of nodes, in order: name → function from a line to its value."""


def write_predictions(
    images: Iterable[ImagePredictions], format: str, out: TextIO, *, nodes: bool = False
) -> None:
    """Write the predictions of images in one of ``FORMATS``.

    ``jsonl`` and ``csv`` write each image as it comes; ``json`` and ``table`` wait for the last. A
    table has the columns of ``index_probability`` and ``interval`` only if some prediction has
    them. ``json`` is a list of ``{"image": ..., "predictions": [...]}``, ``jsonl`` has one such
    object per line, ``csv`` one line per prediction.

    Args:
        images: predictions, image by image.
        format: one of ``FORMATS``.
        out: stream to write to.
        nodes: whether the predictions are ``NodePrediction``s.
    """
    _WRITERS[format][nodes](images, out)


def _json_object(image: ImagePredictions) -> dict[str, Any]:
    values: dict[str, Any] = {
        "image": image.image,
        "predictions": [asdict(prediction) for prediction in image.predictions],
    }
    return values if image.reason is None else values | {"none_of_these": image.reason}


def _write_json(images: Iterable[ImagePredictions], out: TextIO) -> None:
    json.dump(list(map(_json_object, images)), out, ensure_ascii=False, indent=2)
    out.write("\n")


def _write_jsonl(images: Iterable[ImagePredictions], out: TextIO) -> None:
    for image in images:
        out.write(json.dumps(_json_object(image), ensure_ascii=False) + "\n")
        out.flush()


def _write_csv(images: Iterable[ImagePredictions], out: TextIO) -> None:
    writer = _csv_writer(CSV_COLUMNS, out)
    for image, predictions, reason in images:
        if reason is not None:
            writer.writerow({"image": image, "rank": 0, "label": NONE})
        writer.writerows(_csv_rows(CSV_COLUMNS, image, cast("Sequence[Prediction]", predictions)))
        out.flush()


def _write_node_csv(images: Iterable[ImagePredictions], out: TextIO) -> None:
    writer = _csv_writer(NODE_CSV_COLUMNS, out)
    for image, predictions, _ in images:
        nodes = cast("Sequence[NodePrediction]", predictions)
        writer.writerows(_csv_rows(NODE_CSV_COLUMNS, image, nodes))
        out.flush()


def _csv_writer(columns: Iterable[str], out: TextIO) -> csv.DictWriter[str]:
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    return writer


def _csv_rows(
    columns: Mapping[str, Callable[[CsvLine[P]], object]], image: str, predictions: Sequence[P]
) -> Iterable[dict[str, object]]:
    for rank, prediction in enumerate(predictions, start=1):
        line = CsvLine(image, rank, prediction)
        yield {name: value_of(line) for name, value_of in columns.items()}


def _write_table(images: Iterable[ImagePredictions], out: TextIO) -> None:
    # rich takes a while to import.
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    listed = [
        (image, cast("Sequence[Prediction]", predictions), reason)
        for image, predictions, reason in images
    ]
    every = [prediction for _, predictions, _ in listed for prediction in predictions]
    with_interval = any(prediction.interval is not None for prediction in every)
    over_index = any(prediction.index_probability is not None for prediction in every)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("label", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=_BAR_WIDTH)
    table.add_column("similarity", justify="right", no_wrap=True)
    if with_interval:
        table.add_column("95 % interval", justify="right", no_wrap=True)
    if over_index:
        table.add_column("over the index", justify="right", no_wrap=True)
    for image, predictions, reason in listed:
        if reason is not None:
            table.add_row(Text(image), Text(f"{NONE}: {reason}"))
        for position, prediction in enumerate(predictions):
            table.add_row(
                # Text, so that rich does not take brackets in names for markup.
                Text(image if position == 0 else ""),
                Text(prediction.label),
                percent(prediction.probability),
                _bar(prediction.probability),
                f"{prediction.similarity:.4f}",
                *([_format_interval(prediction.interval)] if with_interval else []),
                *([_format_optional(prediction.index_probability)] if over_index else []),
                end_section=len(predictions) > 1 and position == len(predictions) - 1,
            )
    make_console(out).print(table)


def _write_node_table(images: Iterable[ImagePredictions], out: TextIO) -> None:
    rows = []
    for image, predictions, _ in images:
        for position, node in enumerate(cast("Sequence[NodePrediction]", predictions)):
            rows.append(
                [
                    image if position == 0 else "",
                    node.label,
                    percent(node.probability),
                    _bar(node.probability),
                    node.rank or "",
                    PATH_SEPARATOR.join(node.path[:-1]),
                ]
            )
        if not predictions:
            rows.append([image, "(nothing is probable enough)", "", "", "", ""])
    write_columns(["image", "label", "probability", "", "rank", "path"], rows, out)


def _bar(probability: float) -> str:
    return "█" * round(probability * _BAR_WIDTH)


def _format_optional(probability: float | None) -> str:
    return "" if probability is None else percent(probability)


def _format_interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


_Writer = Callable[[Iterable[ImagePredictions], TextIO], None]

_WRITERS: dict[str, tuple[_Writer, _Writer]] = {
    "table": (_write_table, _write_node_table),
    "json": (_write_json, _write_json),
    "jsonl": (_write_jsonl, _write_jsonl),
    "csv": (_write_csv, _write_node_csv),
}
"""Output format → its writer of labels and its writer of nodes."""

FORMATS = tuple(_WRITERS)
"""Output formats of ``query --format``."""
