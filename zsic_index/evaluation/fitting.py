"""Fit a calibration to an index and its images."""

from __future__ import annotations

import datetime
from dataclasses import replace

import numpy as np

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
from zsic_index.embedding_arrays import Float32
from zsic_index.evaluation.answers import _Answers, _shown
from zsic_index.evaluation.known import Known
from zsic_index.label_index import LabelIndex
from zsic_index.label_index.searcher import check_takes_label_bias
from zsic_index.records import HUB_ALPHA, HUB_K


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
    check_takes_label_bias(index.info)
    hubs = hub_bias(
        index.embeddings,
        references,
        k,
        alpha,
        label_ids=index.label_ids,
        pooling=index.searcher.pooling,
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
            pooling=index.searcher.pooling,
        )
    else:
        fit = fit_sigmoid(
            index.embeddings,
            first.embeddings,
            first.truth,
            logit_scale=info.logit_scale,
            logit_bias=info.logit_bias,
            label_bias=label_bias,
            pooling=index.searcher.pooling,
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
    answers = _Answers.of(index.with_calibration(calibration), second, _shown(index))
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


def _today() -> str:
    return datetime.date.today().isoformat()
