"""Measure an index on labelled images."""

from __future__ import annotations

import base64
import datetime
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zsic_index.calibration import Calibration
from zsic_index.calibration.reliability import Reliability, reliability
from zsic_index.embedding_arrays import Bool, Int64
from zsic_index.errors import ImageError
from zsic_index.evaluation import metrics
from zsic_index.evaluation.embedding import LabelledEmbeddings
from zsic_index.evaluation.predictions import LabelledPredictions, ece_top_k
from zsic_index.evaluation.record import (
    CalibrationFigures,
    Confusion,
    Coverage,
    Evaluation,
    MultiLabel,
    RankFigure,
    TemplateSet,
    WorstImage,
)
from zsic_index.images.opening import open_image
from zsic_index.label_index import LabelIndex
from zsic_index.taxonomy.rollup import LabelGroups, group_labels_at
from zsic_index.taxonomy.structure import Structure

_TOP_K = 50
"""Labels per image that F1 and prediction sets are measured on, at least."""

_LARGEST_SET = 4_096
"""Labels per image that prediction sets are measured on, at most."""

_CONFUSIONS = 12
_WORST = 12
_THUMBNAIL = 160

F1_THRESHOLD = 0.5


def evaluate(
    index: LabelIndex,
    labelled: LabelledEmbeddings,
    *,
    source: str,
    calibration: Calibration | None = None,
    others: Mapping[str, LabelIndex] | None = None,
) -> Evaluation:
    """Measure accuracy, calibration and confusions of an index on labelled images.

    The index is measured with the model's own scale and bias, whichever calibration it answers
    with, and stays as it is.

    Args:
        index: the index to measure.
        labelled: labelled images; not those that a calibration was fitted on.
        source: name of the labelled images in the evaluation.
        calibration: calibration whose probabilities are compared with the model's own.
        others: indexes of the same labels with other templates, by the name of these.
    """
    own_index = index.with_calibration(None)
    own = LabelledPredictions.of(own_index, labelled, _TOP_K)
    best_index, calibrated = own_index, None
    if calibration is not None:
        # Under softmax no prediction set is larger than this, so none is cut.
        largest = calibration.conformal.largest_set if calibration.conformal else 0
        best_index = index.with_calibration(calibration)
        calibrated = LabelledPredictions.of(
            best_index, labelled, max(_TOP_K, min(largest, _LARGEST_SET))
        )
    best = calibrated or own
    truth = labelled.truth
    has_several_labels = truth.images < len(truth.label)
    top_k = ece_top_k(index)
    first_rows = own.rows[:, 0]
    reordered = calibrated if calibration and _can_reorder(index, calibration) else None
    structure = index.structure
    names = index.labels
    return Evaluation(
        index=index.info.name,
        model=index.info.model_id,
        labels=len(index),
        source=source,
        date=datetime.date.today().isoformat(),
        counts=labelled.counts,
        top1=_accuracy_within(own, labelled, 1),
        top5=_accuracy_within(own, labelled, 5),
        calibration=CalibrationFigures(
            top_k,
            _reliability(own, labelled, top_k),
            None if calibrated is None else _reliability(calibrated, labelled, top_k),
            "" if calibration is None else _note(calibration),
        ),
        ranks=_ranks(structure, labelled, first_rows),
        multi_label=_multi_label(best_index, labelled, best) if has_several_labels else None,
        coverage=_coverage(calibration, calibrated),
        confusions=tuple(
            Confusion(names[true], names[predicted], count)
            for true, predicted, count in metrics.confusions(
                _true_rows(labelled, first_rows), first_rows, _CONFUSIONS
            )
        ),
        worst=_worst(labelled, best, names),
        template_sets=tuple(
            _template_set(name, other, labelled) for name, other in (others or {}).items()
        ),
        calibrated_top1=None if reordered is None else _accuracy_within(reordered, labelled, 1),
        calibrated_top5=None if reordered is None else _accuracy_within(reordered, labelled, 5),
    )


def _can_reorder(index: LabelIndex, calibration: Calibration) -> bool:
    """Tell whether a calibration can change which label is the most probable."""
    return calibration.hubs is not None or index.info.name_pooling == "mass"


def _accuracy_within(
    predictions: LabelledPredictions, labelled: LabelledEmbeddings, k: int
) -> metrics.Figure:
    """Return the fraction of images with a correct label among the k most probable ones."""
    return metrics.accuracy(metrics.hits_within(predictions.rows, labelled.truth, k))


def _note(calibration: Calibration) -> str:
    """Return a sentence about the images and the day that a calibration was fitted on."""
    parts = []
    if calibration.hubs is not None:
        parts.append(f"label bias from {calibration.hubs.references:,} images without labels")
    if calibration.fit is not None:
        parts.append(f"fitted on {calibration.fitted_on.images:,} images")
    note = ", ".join(parts)
    return f"{note[:1].upper()}{note[1:]}, {calibration.fitted_on.date}."


def _reliability(
    predictions: LabelledPredictions, labelled: LabelledEmbeddings, top_k: int
) -> Reliability:
    correct: Bool = labelled.truth.contains(predictions.rows)
    return reliability(predictions.probabilities[:, :top_k].ravel(), correct[:, :top_k].ravel())


def _true_rows(labelled: LabelledEmbeddings, predicted: Int64) -> Int64:
    """Return the (B,) row of one correct label: the predicted one if correct, else the first."""
    truth = labelled.truth
    return np.where(truth.contains(predicted[:, None])[:, 0], predicted, truth.first_labels())


def _ranks(
    structure: Structure, labelled: LabelledEmbeddings, predicted: Int64
) -> tuple[RankFigure, ...]:
    """Return the accuracy at each rank, where labels below the same node count as equal."""
    if not structure.taxonomy.ranks and not len(structure.parents.indices):
        return ()
    true = _true_rows(labelled, predicted)
    by_rank = [
        _node_of_rows(structure, group_labels_at(structure, rank)) for rank in structure.ranks
    ]
    nodes = np.stack(by_rank, axis=1)
    figures = metrics.accuracy_by_rank(nodes[predicted], nodes[true])
    return tuple(
        RankFigure(rank, len(structure.nodes_at(rank)), figure)
        for rank, figure in zip(structure.ranks, figures, strict=True)
        if figure is not None
    )


def _node_of_rows(structure: Structure, rank_groups: LabelGroups) -> Int64:
    """Return (N,) the node of one rank above each row's label: the last of several, or NO_NODE."""
    last = rank_groups.members.indptr[1:-1] - 1
    nodes = np.append(rank_groups.nodes[rank_groups.members.indices[last]], metrics.NO_NODE)
    return nodes[rank_groups.group_of[structure.row_order]]


def _multi_label(
    index: LabelIndex, labelled: LabelledEmbeddings, predictions: LabelledPredictions
) -> MultiLabel:
    return MultiLabel(
        metrics.mean_average_precision(
            index.embeddings,
            labelled.embeddings,
            labelled.truth,
            logit_scale=index.searcher.logit_scale,
            log_partition=predictions.log_partition,
            pooling=index.searcher.pooling,
        ),
        metrics.f1(predictions.rows, predictions.probabilities >= F1_THRESHOLD, labelled.truth),
        f"{F1_THRESHOLD:g} for every label",
    )


def _coverage(
    calibration: Calibration | None, predictions: LabelledPredictions | None
) -> Coverage | None:
    if calibration is None or calibration.conformal is None or predictions is None:
        return None
    conformal = calibration.conformal
    sizes = conformal.sets(predictions.probabilities).sizes
    return Coverage(
        conformal.coverage,
        metrics.accuracy(predictions.lowest_correct >= conformal.limit),
        float(sizes.mean()),
        float(np.median(sizes)),
        float((sizes == 0).mean()),
    )


def _worst(
    labelled: LabelledEmbeddings, predictions: LabelledPredictions, names: Sequence[str]
) -> tuple[WorstImage, ...]:
    """Return the wrongly classified images of the highest probability, most probable first."""
    truth = labelled.truth
    wrong = np.flatnonzero(~truth.contains(predictions.rows[:, :1])[:, 0])
    wrong = wrong[np.argsort(-predictions.probabilities[wrong, 0], kind="stable")][:_WORST]
    return tuple(
        WorstImage(
            str(labelled.paths[image]),
            tuple(names[row] for row in truth.label[truth.image == image]),
            float(predictions.highest_correct[image]),
            names[predictions.rows[image, 0]],
            float(predictions.probabilities[image, 0]),
            _thumbnail(labelled.paths[image]),
        )
        for image in wrong.tolist()
    )


def _template_set(name: str, index: LabelIndex, labelled: LabelledEmbeddings) -> TemplateSet:
    # The index has the same labels in the same order, so the correct rows are the same.
    predictions = LabelledPredictions.of(index, labelled, _TOP_K)
    return TemplateSet(
        name,
        index.info.templates,
        _accuracy_within(predictions, labelled, 1),
        _accuracy_within(predictions, labelled, 5),
        _reliability(predictions, labelled, ece_top_k(index)).error,
    )


def _thumbnail(path: Path) -> str | None:
    """Return a small JPEG of an image as a ``data:`` URI; None if it cannot be read."""
    try:
        image = open_image(path)
    except ImageError:
        return None
    image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
