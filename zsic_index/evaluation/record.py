"""The record of an evaluation, from which all output formats are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from zsic_index.calibration.reliability import Reliability
from zsic_index.evaluation.metrics import F1, Figure


@dataclass(frozen=True, slots=True)
class InputCounts:
    """Number of inputs by outcome.

    ``given == evaluated + repeated + missing + unlabelled + ignored + refused + unknown``.

    Attributes:
        given: rows of the table, or files below the folder.
        evaluated: images that were measured.
        repeated: rows that name an image of an earlier row.
        missing: rows whose file does not exist.
        unlabelled: images without a label.
        ignored: hidden files, and files that are not images.
        refused: images that cannot be read.
        unknown: images without a label that is in the index.
    """

    given: int
    evaluated: int
    repeated: int = 0
    missing: int = 0
    unlabelled: int = 0
    ignored: int = 0
    refused: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class RankFigure:
    """Accuracy at one rank, with the number of nodes of that rank."""

    rank: str
    nodes: int
    accuracy: Figure


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """Figures for images with several labels.

    Attributes:
        mean_average_precision: mean over labels that are correct for at least one image.
        f1: F1 of the labels that reach their thresholds.
        thresholds: description of the thresholds, such as ``0.5 for every label``.
    """

    mean_average_precision: float
    f1: F1
    thresholds: str


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """Reliability of probabilities, with and without calibration.

    Attributes:
        shown: number of most probable labels of each image that are measured: 1 under softmax,
            several under sigmoid, which underestimates the label that ranks first among all.
        before: reliability with the model's own scale and bias.
        after: reliability with the calibration; None without one.
        note: sentence about the images that the calibration was fitted on; empty without one.
    """

    shown: int
    before: Reliability
    after: Reliability | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of prediction sets on images that they were not fitted on.

    Attributes:
        wanted: fraction of sets that should hold all correct labels.
        found: fraction of sets that do.
        mean_size: mean number of labels per set.
        median_size: median number of labels per set.
        empty: fraction of sets without any label.
    """

    wanted: float
    found: Figure
    mean_size: float
    median_size: float
    empty: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """A pair of labels, with the number of images of the first that were taken for the second."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True, slots=True)
class WorstImage:
    """An image with a wrong prediction of high probability.

    Attributes:
        name: name to display, such as its path.
        true: correct labels.
        true_probability: probability of the most probable correct label.
        predicted: most probable label.
        probability: probability of the most probable label.
        thumbnail: ``data:`` URI of a small picture; None without one.
    """

    name: str
    true: tuple[str, ...]
    true_probability: float
    predicted: str
    probability: float
    thumbnail: str | None = None


@dataclass(frozen=True, slots=True)
class TemplateSet:
    """Accuracy and expected calibration error of one template set on the same images."""

    name: str
    templates: tuple[str, ...]
    top1: Figure
    top5: Figure
    ece: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of an index on labelled images.

    Attributes:
        index: name of the index.
        model: the checkpoint, or None for imported embeddings.
        labels: N, the number of labels.
        source: the folder or table of labelled images.
        date: day of the evaluation (ISO 8601).
        counts: number of inputs by outcome.
        top1: fraction of images whose most probable label is correct.
        top5: fraction of images with a correct label among the five most probable ones.
        calibrated_top1: ``top1`` with a calibration that can change the order of labels; None
            without one. Ranks and confusions are always without calibration.
        calibrated_top5: ``top5`` with such a calibration.
        calibration: reliability of the probabilities.
        ranks: accuracy per rank, from the highest rank down; empty without a taxonomy.
        multi_label: figures for several labels per image; None if no image has several.
        coverage: coverage of prediction sets; None without them.
        confusions: most frequent first.
        worst: most probable first.
        template_sets: in the order given; empty if none were compared.
    """

    index: str
    model: str | None
    labels: int
    source: str
    date: str
    counts: InputCounts
    top1: Figure
    top5: Figure
    calibration: CalibrationFigures
    ranks: tuple[RankFigure, ...] = ()
    multi_label: MultiLabel | None = None
    coverage: Coverage | None = None
    confusions: tuple[Confusion, ...] = ()
    worst: tuple[WorstImage, ...] = ()
    template_sets: tuple[TemplateSet, ...] = ()
    calibrated_top1: Figure | None = None
    calibrated_top5: Figure | None = None


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the record as JSON values, without thumbnails."""
    values = asdict(evaluation)
    for image in values["worst"]:
        del image["thumbnail"]
    return values
