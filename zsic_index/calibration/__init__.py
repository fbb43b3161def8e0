"""Fitting probabilities to labelled images: arrays in, records out.

Nothing here loads a model or opens a store. Image embeddings, label embeddings and what is right
come as arrays; what is fitted is a record that can be kept as JSON.
"""

from zsic_index.calibration.hubs import HubBias, hub_bias
from zsic_index.calibration.passes import pair_similarities
from zsic_index.calibration.precision import (
    NEVER,
    PrecisionThresholds,
    thresholds_for_precision,
)
from zsic_index.calibration.record import Calibration, FittedOn, digest, required
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
    "fit_sigmoid",
    "fit_temperature",
    "hub_bias",
    "pair_similarities",
    "required",
    "thresholds_for_precision",
]
