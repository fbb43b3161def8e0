"""Fit a calibration to an index."""

from __future__ import annotations

import datetime
from dataclasses import replace

import numpy as np

from zsic_index.calibration import (
    Calibration,
    FittedOn,
    digest,
    fit_conformal,
    fit_hub_bias,
    fit_sigmoid,
    fit_temperature,
    fit_thresholds,
)
from zsic_index.embedding_arrays import Float32
from zsic_index.evaluation.embedding import LabelledEmbeddings
from zsic_index.evaluation.predictions import LabelledPredictions, ece_top_k
from zsic_index.label_index import LabelIndex
from zsic_index.label_index.searcher import check_takes_label_bias
from zsic_index.records import HUB_ALPHA, HUB_K


def fit_hubs(
    index: LabelIndex, references: Float32, *, k: int = HUB_K, alpha: float = HUB_ALPHA
) -> Calibration:
    """Fit a label bias against hubs (labels that are close to every image) to unlabelled images.

    The result does not depend on the calibration that the index answers with.

    Args:
        index: the index to calibrate.
        references: (R, D) float32 unit-norm embeddings of images like those of later queries.
        k: number of nearest images per label whose similarity is averaged, at most R.
        alpha: fraction of that mean similarity that is subtracted from the label's similarities.

    Raises:
        InputError: for k or alpha out of range, or a kind of index that cannot use a bias.
    """
    check_takes_label_bias(index.info)
    hubs = fit_hub_bias(
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
    labelled: LabelledEmbeddings,
    *,
    hubs: Calibration | None = None,
    precision: float | None = None,
    coverage: float | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit a logit scale (and a bias under sigmoid), optionally thresholds and prediction sets.

    The result does not depend on the calibration that the index answers with. With ``precision`` or
    ``coverage``, half of the images fit the scale and the other half the rest: probabilities are
    too confident on the images that they were fitted to.

    Args:
        index: the index to calibrate.
        labelled: labelled images.
        hubs: calibration from ``fit_hubs``, whose label bias is applied before the scale is fitted.
        precision: precision that thresholds should keep; None for no thresholds.
        coverage: fraction of images whose prediction set should hold all correct labels; None for
            no sets.
        seed: seed of the random split.

    Raises:
        InputError: when the images determine no scale, or are too few for the coverage.
    """
    info = index.info
    order = np.random.default_rng(seed).permutation(len(labelled.paths))
    split = precision is not None or coverage is not None
    half = (len(order) + 1) // 2 if split else len(order)
    first, second = labelled.take(order[:half]), labelled.take(order[half:])
    hub_bias = None if hubs is None else hubs.hubs
    label_bias = None if hub_bias is None else hub_bias.of(index.label_ids)
    if info.activation == "softmax":
        fit = fit_temperature(
            index.embeddings,
            first.embeddings,
            first.truth.first_labels(),
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
    inputs = digest(
        info.plan,
        labelled.embeddings,
        labelled.truth.image,
        labelled.truth.label,
        "" if hubs is None else hubs.fitted_on.digest,
    )
    calibration = Calibration(
        info.activation,
        fit,
        FittedOn(len(labelled.paths), inputs, _today()),
        hubs=hub_bias,
    )
    if not split:
        return calibration
    predictions = LabelledPredictions.of(
        index.with_calibration(calibration), second, ece_top_k(index)
    )
    if coverage is not None:
        conformal = fit_conformal(predictions.lowest_correct, coverage)
        calibration = replace(calibration, conformal=conformal)
    if precision is not None:
        thresholds = fit_thresholds(
            index.label_ids[predictions.rows].ravel(),
            predictions.probabilities.ravel(),
            second.truth.contains(predictions.rows).ravel(),
            precision,
        )
        calibration = replace(calibration, thresholds=thresholds)
    return calibration


def _today() -> str:
    return datetime.date.today().isoformat()
