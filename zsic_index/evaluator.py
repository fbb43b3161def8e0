"""Images against an index: how good its answers are, and what calibrates them."""

from __future__ import annotations

import base64
import datetime
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from zsic_index.calibration import (
    Calibration,
    FittedOn,
    digest,
    fit_sigmoid,
    fit_temperature,
    hub_bias,
    thresholds_for_precision,
)
from zsic_index.calibration.conformal import fit_conformal
from zsic_index.calibration.reliability import Reliability, reliability
from zsic_index.calibration.truth import Truth
from zsic_index.embedding_arrays import Bool, Float32, Float64, Int64
from zsic_index.errors import ImageError, InputError
from zsic_index.evaluation import Evaluation, Labelled, metrics
from zsic_index.evaluation.record import (
    CalibrationFigures,
    Confusion,
    Counts,
    Coverage,
    MultiLabel,
    RankFigure,
    TemplateSet,
    WorstImage,
)
from zsic_index.images.opening import open_image
from zsic_index.label_index import LabelIndex
from zsic_index.records import HUB_ALPHA, HUB_K
from zsic_index.scan.goal import Scan
from zsic_index.scan.probabilities import activate
from zsic_index.taxonomy.names import folded
from zsic_index.taxonomy.rollup import Groups, groups
from zsic_index.taxonomy.structure import Structure

SHOWN_UNDER_SIGMOID = 5
"""Labels per image that calibration is judged on for sigmoid models."""

_ANSWERS = 50
"""Labels per image that are looked at for sets and F1."""

_LARGEST_SET = 4_096
"""Labels of a prediction set that are counted, at most."""

_CONFUSIONS = 12
_WORST = 12
_THUMBNAIL = 160

F1_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Labelled images with their embeddings.

    Attributes:
        paths: of the B images.
        embeddings: (B, D) float32 unit-norm.
        truth: their right labels, by row of the index.
        counts: what became of everything that was given.
        refused: why, for images that cannot be read.
        unknown: labels that are not in the index.
    """

    paths: tuple[Path, ...]
    embeddings: Float32
    truth: Truth
    counts: Counts
    refused: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def first(self) -> Int64:
        """(B,) the row of each image's right label; of several the first."""
        starts = np.searchsorted(self.truth.image, np.arange(self.truth.images))
        return self.truth.label[starts]

    def part(self, chosen: Int64) -> Known:
        """Return some of the images, by place."""
        rank = np.full(self.truth.images, -1)
        rank[chosen] = np.arange(len(chosen))
        inside = rank[self.truth.image] >= 0
        truth = Truth.of(
            len(chosen),
            self.truth.labels,
            rank[self.truth.image[inside]],
            self.truth.label[inside],
        )
        paths = tuple(self.paths[at] for at in chosen.tolist())
        return replace(self, paths=paths, embeddings=self.embeddings[chosen], truth=truth)


def embed(index: LabelIndex, labelled: Labelled) -> Known:
    """Embed labelled images, and find the rows of their labels.

    A label is found by what it is known by or its name, else by an alias, else by a name in another
    language; without regard to case, Unicode form and underscores. A name that several labels have
    is none.

    Raises:
        InputError: when nothing is left.
        ModelError: see ``LabelIndex.classify``.
    """
    row_of = _row_of_names(index)
    wanted, unknown = [], dict[str, None]()
    for image in labelled.images:
        rows = {name: row_of.get(_folded(name)) for name in image.labels}
        unknown |= dict.fromkeys(name for name, row in rows.items() if row is None)
        wanted.append([row for row in rows.values() if row is not None])
    known = [at for at, rows in enumerate(wanted) if rows]
    paths, embeddings, refused = [], [], []
    image_rows: list[list[int]] = []
    sources = [labelled.images[at].path for at in known]
    for at, found in zip(known, index.stream_embeddings(sources), strict=True):
        if isinstance(found, ImageError):
            refused.append(str(found))
            continue
        paths.append(labelled.images[at].path)
        embeddings.append(found)
        image_rows.append(wanted[at])
    if not embeddings:
        raise InputError(
            f"none of {len(labelled.images)} images can be used: {len(refused)} are refused, and "
            f"the labels of {len(labelled.images) - len(known)} are not in the index "
            f"(such as {next(iter(unknown), None)!r})"
        )
    pairs = [(image, row) for image, rows in enumerate(image_rows) for row in rows]
    image, row = np.array(pairs, dtype=np.int64).T
    return Known(
        tuple(paths),
        np.stack(embeddings),
        Truth.of(len(paths), len(index), image, row),
        Counts(
            given=labelled.entries,
            evaluated=len(paths),
            repeated=labelled.repeated,
            missing=len(labelled.missing),
            unlabelled=labelled.unlabelled,
            ignored=labelled.ignored,
            refused=len(refused),
            unknown=len(labelled.images) - len(known),
        ),
        tuple(refused),
        tuple(unknown),
    )


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Images without labels.

    Attributes:
        embeddings: (R, D) float32 unit-norm.
        refused: why, for images that cannot be read.
    """

    embeddings: Float32
    refused: tuple[str, ...]


def embed_references(index: LabelIndex, paths: Iterable[Path]) -> References:
    """Embed images without labels.

    Raises:
        InputError: when none of them can be read.
        ModelError: see ``LabelIndex.classify``.
    """
    embeddings, refused = [], []
    for found in index.stream_embeddings(paths):
        if isinstance(found, ImageError):
            refused.append(str(found))
        else:
            embeddings.append(found)
    if not embeddings:
        raise InputError(f"none of {len(refused)} images can be read, such as: {refused[:1]}")
    return References(np.stack(embeddings), tuple(refused))


def fit_hubs(
    index: LabelIndex, references: Float32, *, k: int = HUB_K, alpha: float = HUB_ALPHA
) -> Calibration:
    """Fit a bias per label to images without labels, against labels that are near to every image.

    Args:
        index: with the model's own scale and bias.
        references: (R, D) float32 unit-norm embeddings of images such as will be asked about.
        k: how many of the images nearest to a label are averaged, at most R.
        alpha: the part of their mean similarity that is taken from the label's.

    Raises:
        InputError: for k or alpha out of range, or a kind of index that cannot use it.
    """
    index.check_takes_a_bias()
    hubs = hub_bias(
        index.embeddings,
        references,
        k,
        alpha,
        label_ids=index.label_ids,
        pooling=index.pooling,
        logit_scale=index.info.logit_scale,
    )
    fitted_on = FittedOn(0, digest(index.info.plan, references), _today())
    return Calibration(index.info.activation, None, fitted_on, hubs=hubs)


def calibrate(
    index: LabelIndex,
    known: Known,
    *,
    hubs: Calibration | None = None,
    precision: float | None = None,
    coverage: float | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit a logit scale (and a bias under sigmoid), and what is asked for beside it.

    Where thresholds or sets are asked for, half of the images fit the scale and the others these:
    what was fitted on an image is too sure of it.

    Args:
        index: with the model's own scale and bias.
        known: its labelled images.
        hubs: what ``fit_hubs`` gave: the scale is fitted to similarities less its bias.
        precision: what thresholds are to keep; None for no thresholds.
        coverage: how often prediction sets are to hold the right label; None for no sets.
        seed: of the split.

    Raises:
        InputError: when the images determine no scale, or are too few for the coverage.
    """
    info = index.info
    order = np.random.default_rng(seed).permutation(len(known.paths))
    split = precision is not None or coverage is not None
    half = (len(order) + 1) // 2 if split else len(order)
    first, second = known.part(order[:half]), known.part(order[half:])
    bias = None if hubs is None else hubs.hubs
    label_bias = None if bias is None else bias.of(index.label_ids)
    if info.activation == "softmax":
        fit = fit_temperature(
            index.embeddings,
            first.embeddings,
            first.first,
            logit_scale=info.logit_scale,
            label_bias=label_bias,
            pooling=index.pooling,
        )
    else:
        fit = fit_sigmoid(
            index.embeddings,
            first.embeddings,
            first.truth,
            logit_scale=info.logit_scale,
            logit_bias=info.logit_bias,
            label_bias=label_bias,
            pooling=index.pooling,
        )
    fitted_on = digest(
        info.plan,
        known.embeddings,
        known.truth.image,
        known.truth.label,
        "" if hubs is None else hubs.fitted_on.digest,
    )
    calibration = Calibration(
        info.activation,
        fit,
        FittedOn(len(known.paths), fitted_on, _today()),
        hubs=bias,
    )
    if not split:
        return calibration
    with _using(index, calibration):
        answers = _Answers.of(index, second, _shown(index))
    if coverage is not None:
        calibration = replace(calibration, conformal=fit_conformal(answers.right, coverage))
    if precision is not None:
        thresholds = thresholds_for_precision(
            index.label_ids[answers.rows].ravel(),
            answers.probabilities.ravel(),
            second.truth.contains(answers.rows).ravel(),
            precision,
        )
        calibration = replace(calibration, thresholds=thresholds)
    return calibration


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
    with _using(index, None):
        answers = _Answers.of(index, known, min(_ANSWERS, len(index)))
    calibrated = None
    multi_label = None
    several = known.truth.images < len(known.truth.label)
    with _using(index, calibration):
        if calibration is not None:
            # No set is larger than this under softmax, so that none is cut.
            largest = calibration.conformal.largest_set if calibration.conformal else 0
            top_k = max(_ANSWERS, min(largest, _LARGEST_SET))
            calibrated = _Answers.of(index, known, min(top_k, len(index)))
        best = calibrated or answers
        if several:
            multi_label = _multi_label(index, known, best)
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
    return calibration.hubs is not None or index.info.names == "mass"


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


@contextmanager
def _using(index: LabelIndex, calibration: Calibration | None) -> Iterator[None]:
    """Have an index answer with a calibration meanwhile, and with the model's own numbers then."""
    index.use(calibration)
    try:
        yield
    finally:
        index.use(None)


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """What an index says of B images.

    Attributes:
        rows: (B, k) int64, best first.
        probabilities: (B, k) float64.
        right: (B,) float64 probability of the right label; of several the least.
        best_right: (B,) the same, of several the largest.
        log_partition: (B,) float64; None under sigmoid.
    """

    rows: Int64
    probabilities: Float64
    right: Float64
    best_right: Float64
    log_partition: Float64 | None

    @classmethod
    def of(cls, index: LabelIndex, known: Known, top_k: int) -> _Answers:
        found: Scan = index.search(known.embeddings, top_k)
        truth = known.truth
        partition = found.log_partition
        activation = index.info.activation
        logits = index.pair_logits(known.embeddings, truth.image, truth.label)
        of_pairs = activate(
            logits[:, None], activation, None if partition is None else partition[truth.image]
        )[:, 0]
        least, most = np.full(truth.images, np.inf), np.zeros(truth.images)
        np.minimum.at(least, truth.image, of_pairs)
        np.maximum.at(most, truth.image, of_pairs)
        return cls(
            found.rows,
            activate(found.logits, activation, partition),
            least,
            most,
            partition,
        )


def _today() -> str:
    return datetime.date.today().isoformat()


def _shown(index: LabelIndex) -> int:
    return 1 if index.info.activation == "softmax" else min(SHOWN_UNDER_SIGMOID, len(index))


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
    by_rank = [_node_of_rows(structure, groups(structure, rank)) for rank in structure.ranks]
    nodes = np.stack(by_rank, axis=1)
    figures = metrics.accuracy_by_rank(nodes[predicted], nodes[true])
    return tuple(
        RankFigure(rank, len(structure.nodes_at(rank)), figure)
        for rank, figure in zip(structure.ranks, figures, strict=True)
        if figure is not None
    )


def _node_of_rows(structure: Structure, found: Groups) -> Int64:
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
            logit_scale=index.logit_scale,
            log_partition=answers.log_partition,
            pooling=index.pooling,
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


def _row_of_names(index: LabelIndex) -> dict[str, int | None]:
    """Return the row of every name, folded; None for a name that several labels have."""
    structure = index.structure
    taxonomy = structure.taxonomy
    nodes = taxonomy.label_nodes[structure.row_order].tolist()
    kinds: tuple[Callable[[int], Iterable[str]], ...] = (
        lambda node: (taxonomy.keys[node], taxonomy.names[node]),
        lambda node: taxonomy.aliases.get(node, ()),
        taxonomy.translations,
    )
    found: dict[str, int | None] = {}
    for names_of in kinds:
        of_kind: defaultdict[str, set[int]] = defaultdict(set)
        for row, node in enumerate(nodes):
            for name in names_of(node):
                of_kind[_folded(name)].add(row)
        # A label's own name is not taken from it by what others are called elsewhere.
        for name, rows in of_kind.items():
            found.setdefault(name, rows.pop() if len(rows) == 1 else None)
    return found


def _folded(name: str) -> str:
    """Return a name as a folder or a table may have it."""
    return " ".join(folded(name).replace("_", " ").replace("/", " ").split())
