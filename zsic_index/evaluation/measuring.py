"""Images against an index: how good its answers are, and what calibrates them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zsic_index.calibration import (
    Calibration,
)
from zsic_index.calibration.reliability import Reliability, reliability
from zsic_index.embedding_arrays import Bool, Int64
from zsic_index.errors import ImageError
from zsic_index.evaluation import Evaluation, metrics
from zsic_index.evaluation.answers import _Answers, _shown
from zsic_index.evaluation.fitting import _today
from zsic_index.evaluation.known import Known
from zsic_index.evaluation.record import (
    CalibrationFigures,
    Confusion,
    Coverage,
    MultiLabel,
    RankFigure,
    TemplateSet,
    WorstImage,
)
from zsic_index.images.opening import open_image
from zsic_index.label_index import LabelIndex
from zsic_index.taxonomy.rollup import LabelGroups, group_labels_at
from zsic_index.taxonomy.structure import Structure

_ANSWERS = 50
"""Labels per image that are looked at for sets and F1."""

_LARGEST_SET = 4_096
"""Labels of a prediction set that are counted, at most."""

_CONFUSIONS = 12
_WORST = 12
_THUMBNAIL = 160

F1_THRESHOLD = 0.5


def evaluate(
    index: LabelIndex,
    known: Known,
    *,
    source: str,
    calibration: Calibration | None = None,
    others: Mapping[str, LabelIndex] | None = None,
) -> Evaluation:
    """Measure how good an index's answers are.

    Args:
        index: what is measured.
        known: its labelled images; others than a calibration was fitted on.
        source: what to call them.
        calibration: what to compare the model's own probabilities with.
        others: indexes of the same labels with other templates, by the name of these.
    """
    index = index.with_calibration(None)
    answers = _Answers.of(index, known, min(_ANSWERS, len(index)))
    calibrated = None
    multi_label = None
    several = known.truth.images < len(known.truth.label)
    fitted = index.with_calibration(calibration)
    if calibration is not None:
        # No set is larger than this under softmax, so that none is cut.
        largest = calibration.conformal.largest_set if calibration.conformal else 0
        top_k = max(_ANSWERS, min(largest, _LARGEST_SET))
        calibrated = _Answers.of(fitted, known, min(top_k, len(index)))
    best = calibrated or answers
    if several:
        multi_label = _multi_label(fitted, known, best)
    shown = _shown(index)
    correct = known.truth.contains(answers.rows)
    reordered = calibrated if calibration and _can_reorder(index, calibration) else None
    structure = index.structure
    names = index.labels
    pairs = metrics.confusions(_matched(known, answers.rows[:, 0]), answers.rows[:, 0], _CONFUSIONS)
    return Evaluation(
        index=index.info.name,
        model=index.info.model_id,
        labels=len(index),
        source=source,
        date=_today(),
        counts=known.counts,
        top1=_hits(answers, known, 1),
        top5=_hits(answers, known, 5),
        calibration=CalibrationFigures(
            shown,
            _reliability(answers, correct, shown),
            None
            if calibrated is None
            else _reliability(calibrated, known.truth.contains(calibrated.rows), shown),
            "" if calibration is None else _note(calibration),
        ),
        ranks=_ranks(structure, known, answers.rows[:, 0]),
        multi_label=multi_label,
        coverage=_coverage(calibration, calibrated),
        confusions=tuple(
            Confusion(names[true], names[predicted], count) for true, predicted, count in pairs
        ),
        worst=_worst(known, best, names),
        template_sets=tuple(
            _template_set(name, other, known) for name, other in (others or {}).items()
        ),
        calibrated_top1=None if reordered is None else _hits(reordered, known, 1),
        calibrated_top5=None if reordered is None else _hits(reordered, known, 5),
    )


def _can_reorder(index: LabelIndex, calibration: Calibration) -> bool:
    """Tell whether a calibration can change which label is the most probable."""
    return calibration.hubs is not None or index.info.name_pooling == "mass"


def _hits(answers: _Answers, known: Known, most: int) -> metrics.Figure:
    """Return how often one of the most probable labels is right."""
    return metrics.accuracy(metrics.hits_within(answers.rows, known.truth, most))


def _note(calibration: Calibration) -> str:
    """Say what a calibration was fitted on."""
    parts = []
    if calibration.hubs is not None:
        parts.append(f"label bias from {calibration.hubs.references:,} images without labels")
    if calibration.fit is not None:
        parts.append(f"fitted on {calibration.fitted_on.images:,} images")
    said = ", ".join(parts)
    return f"{said[:1].upper()}{said[1:]}, {calibration.fitted_on.date}."


def _reliability(answers: _Answers, correct: Bool, shown: int) -> Reliability:
    return reliability(answers.probabilities[:, :shown].ravel(), correct[:, :shown].ravel())


def _matched(known: Known, predicted: Int64) -> Int64:
    """Return (B,) right rows: the predicted one where it is right, else the first."""
    return np.where(known.truth.contains(predicted[:, None])[:, 0], predicted, known.first)


def _ranks(structure: Structure, known: Known, predicted: Int64) -> tuple[RankFigure, ...]:
    """Return accuracies by rank: an answer is right when it is below the right one's node."""
    if not structure.taxonomy.ranks and not len(structure.parents.indices):
        return ()
    true = _matched(known, predicted)
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


def _node_of_rows(structure: Structure, found: LabelGroups) -> Int64:
    """Return (N,) for each row the node of a rank that its label is below; the last of several."""
    last = found.members.indptr[1:-1] - 1
    nodes = np.append(found.nodes[found.members.indices[last]], metrics.NO_NODE)
    return nodes[found.group_of[structure.row_order]]


def _multi_label(index: LabelIndex, known: Known, answers: _Answers) -> MultiLabel:
    return MultiLabel(
        metrics.mean_average_precision(
            index.embeddings,
            known.embeddings,
            known.truth,
            logit_scale=index.searcher.logit_scale,
            log_partition=answers.log_partition,
            pooling=index.searcher.pooling,
        ),
        metrics.f1(answers.rows, answers.probabilities >= F1_THRESHOLD, known.truth),
        f"{F1_THRESHOLD:g} for every label",
    )


def _coverage(calibration: Calibration | None, answers: _Answers | None) -> Coverage | None:
    if calibration is None or calibration.conformal is None or answers is None:
        return None
    limit = calibration.conformal
    sizes = limit.sets(answers.probabilities).sizes
    return Coverage(
        limit.coverage,
        metrics.accuracy(answers.right >= limit.limit),
        float(sizes.mean()),
        float(np.median(sizes)),
        float((sizes == 0).mean()),
    )


def _worst(known: Known, answers: _Answers, names: Sequence[str]) -> tuple[WorstImage, ...]:
    wrong = np.flatnonzero(~known.truth.contains(answers.rows[:, :1])[:, 0])
    wrong = wrong[np.argsort(-answers.probabilities[wrong, 0], kind="stable")][:_WORST]
    return tuple(
        WorstImage(
            str(known.paths[at]),
            tuple(names[row] for row in known.truth.label[known.truth.image == at]),
            float(answers.best_right[at]),
            names[answers.rows[at, 0]],
            float(answers.probabilities[at, 0]),
            _thumbnail(known.paths[at]),
        )
        for at in wrong.tolist()
    )


def _template_set(name: str, index: LabelIndex, known: Known) -> TemplateSet:
    # The labels are the same, in the same order; only their embeddings differ.
    answers = _Answers.of(index, known, min(_ANSWERS, len(index)))
    correct = known.truth.contains(answers.rows)
    return TemplateSet(
        name,
        index.info.templates,
        _hits(answers, known, 1),
        _hits(answers, known, 5),
        _reliability(answers, correct, _shown(index)).error,
    )


def _thumbnail(path: Path) -> str | None:
    try:
        image = open_image(path)
    except ImageError:
        return None
    image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    image.save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
