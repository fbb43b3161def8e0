"""Fit probabilities to labelled images: arrays in, records out.

Inputs are label embeddings, image embeddings and their correct labels (``truth``). ``hubs`` fits a
label bias; ``temperature`` (softmax) or ``sigmoid`` fits the logit scale on top of it; from the
probabilities that follow, ``precision`` fits thresholds and ``conformal`` prediction sets.
``record`` keeps all of it as one Calibration, in JSON; ``reliability`` measures calibration error.
Nothing here loads a model or opens a store; ``zsic_index.evaluation`` fits a whole index.
"""

from zsic_index.calibration.conformal import fit_conformal
from zsic_index.calibration.hubs import HubBias, fit_hub_bias
from zsic_index.calibration.passes import pair_similarities
from zsic_index.calibration.precision import (
    NEVER,
    PrecisionThresholds,
    fit_thresholds,
)
from zsic_index.calibration.record import Calibration, FittedOn, digest, require_part
from zsic_index.calibration.sigmoid import fit_sigmoid
from zsic_index.calibration.temperature import ScaleFit, fit_temperature

__all__ = [
    "NEVER",
    "Calibration",
    "FittedOn",
    "HubBias",
    "PrecisionThresholds",
    "ScaleFit",
    "digest",
    "fit_conformal",
    "fit_hub_bias",
    "fit_sigmoid",
    "fit_temperature",
    "fit_thresholds",
    "pair_similarities",
    "require_part",
]
