"""What an evaluation found, as one record that every form of output is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from zsic_index.calibration.reliability import Reliability
from zsic_index.evaluation.metrics import F1, Figure


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of everything that was given.

    ``given == evaluated + repeated + missing + unlabelled + ignored + refused + unknown``.

    Attributes:
        given: rows of the table, or files below the folder.
        evaluated: images that were measured with.
        repeated: rows that name an image again.
        missing: rows without a file.
        unlabelled: images without a label.
        ignored: files that are no images.
        refused: images that cannot be read.
        unknown: images none of whose labels is in the index.
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
    """Accuracy at one rank; ``nodes`` is how many nodes it has."""

    rank: str
    nodes: int
    accuracy: Figure


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """Figures for images with several labels.

    Attributes:
        mean_average_precision: over labels that are right for at least one image.
        f1: of the labels that reach their thresholds.
        thresholds: what these are, as a sentence's end, such as ``0.5 for every label``.
    """

    mean_average_precision: float
    f1: F1
    thresholds: str


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How far probabilities can be believed, with and without calibration.

    Attributes:
        shown: how many labels of each image are looked at, the most probable ones: 1 under softmax.
            Several under sigmoid, where being the first of all makes a label more likely than its
            own probability can say.
        before: with the model's own scale and bias.
        after: with the fitted ones; None without a calibration.
        note: what the calibration was fitted on; empty without one.
    """

    shown: int
    before: Reliability
    after: Reliability | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How prediction sets did on images that they were not fitted on.

    Attributes:
        wanted: how often sets are to hold the right label.
        found: how often they did.
        mean_size: labels per set.
        median_size: the same, the middle one.
        empty: fraction of sets without any label.
    """

    wanted: float
    found: Figure
    mean_size: float
    median_size: float
    empty: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Two labels, and how many images of the first were taken for the second."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True, slots=True)
class WorstImage:
    """An image that was got wrong with a high probability.

    Attributes:
        name: what to call it.
        true: its right labels.
        true_probability: of the most probable right one.
        predicted: the most probable label.
        probability: of that one.
        thumbnail: a ``data:`` URI of a small picture; None for none.
    """

    name: str
    true: tuple[str, ...]
    true_probability: float
    predicted: str
    probability: float
    thumbnail: str | None = None


@dataclass(frozen=True, slots=True)
class TemplateSet:
    """One template set on the same images; ``ece`` is of the same answers as ``calibration``."""

    name: str
    templates: tuple[str, ...]
    top1: Figure
    top5: Figure
    ece: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        index: the index's name.
        model: the checkpoint, or None for imported embeddings.
        labels: N, the number of labels.
        source: the folder or table of labelled images.
        date: when, as the caller writes it.
        counts: what became of what was given.
        top1: how often the most probable label is right.
        top5: how often one of the five most probable labels is.
        calibrated_top1: the same as ``top1`` with a calibration that can change the order; None
            without one. What is said by rank and of confusions is without it.
        calibrated_top5: the same as ``top5``.
        calibration: how far probabilities can be believed.
        ranks: accuracy per rank, from the highest rank down; empty without a taxonomy.
        multi_label: None where no image has several labels.
        coverage: None without prediction sets.
        confusions: most frequent first.
        worst: most confident first.
        template_sets: in the order that was asked for; empty where none were compared.
    """

    index: str
    model: str | None
    labels: int
    source: str
    date: str
    counts: Counts
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
    """Return the record as JSON has it: dicts, lists, strings, numbers; thumbnails are left out."""
    found = asdict(evaluation)
    for image in found["worst"]:
        del image["thumbnail"]
    return found
