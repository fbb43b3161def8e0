"""A calibration as one record, with its JSON form."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from zsic_index.calibration.conformal import ConformalLimit
from zsic_index.calibration.hubs import HubBias
from zsic_index.calibration.precision import NEVER, PrecisionThresholds
from zsic_index.calibration.temperature import ScaleFit
from zsic_index.errors import InputError
from zsic_index.records import Activation

VERSION = 1
"""Version of the JSON form."""

FittedPart = TypeVar("FittedPart")


@dataclass(frozen=True, slots=True)
class FittedOn:
    """Images that a calibration was fitted on.

    Attributes:
        images: number of labelled images; ``HubBias`` counts those without labels.
        digest: hash of all inputs of the fit; see ``digest``.
        date: day of the fit (ISO 8601).
    """

    images: int
    digest: str
    date: str


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Everything fitted for one index: label bias, logit scale and bias, thresholds, sets.

    It does not change the index's own logit scale and bias. A calibrated logit is
    ``scale * (similarity - label bias) + bias``; everything else is computed from the logits.

    Attributes:
        activation: activation of the model.
        fit: logit scale and bias, before and after, fitted on top of ``hubs`` if there is one; None
            for the model's own.
        fitted_on: images that it was fitted on.
        hubs: label bias, subtracted from similarities first; None for no bias.
        thresholds: probabilities from which predictions are accepted; None if not fitted.
        conformal: limit of prediction sets; None if not fitted.
    """

    activation: Activation
    fit: ScaleFit | None
    fitted_on: FittedOn
    hubs: HubBias | None = None
    thresholds: PrecisionThresholds | None = None
    conformal: ConformalLimit | None = None

    def to_json(self) -> str:
        """Return a JSON object from which ``from_json`` restores every number exactly."""
        return json.dumps(
            {
                "version": VERSION,
                "activation": self.activation,
                "fit": self.fit and asdict(self.fit),
                "fitted_on": asdict(self.fitted_on),
                "hubs": self.hubs and _hubs_dict(self.hubs),
                "thresholds": self.thresholds and _thresholds_dict(self.thresholds),
                "conformal": self.conformal and asdict(self.conformal),
            },
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read a JSON object written by ``to_json``.

        Raises:
            InputError: for anything else, or another version.
        """
        try:
            value = json.loads(text)
            version = value["version"]
            if version == VERSION:
                return cls(
                    activation=_read_activation(value["activation"]),
                    fit=_read_optional(_read_scale_fit, value["fit"]),
                    fitted_on=FittedOn(**value["fitted_on"]),
                    hubs=_read_optional(_read_hubs, value["hubs"]),
                    thresholds=_read_optional(_read_thresholds, value["thresholds"]),
                    conformal=_read_optional(_read_conformal, value["conformal"]),
                )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"not a calibration: {type(error).__name__}: {error}; calibrate again"
            ) from error
        raise InputError(
            f"a calibration of version {version!r}; this program reads {VERSION}: calibrate again"
        )


def require_part(part: FittedPart | None, name: str, option: str) -> FittedPart:
    """Return a part of a calibration after checking that it was fitted.

    Raises:
        InputError: when it is None; the message says which option of ``calibrate`` fits it.
    """
    if part is None:
        raise InputError(f"no {name} were fitted: run 'zsic-index calibrate' with {option}")
    return part


def digest(*inputs: npt.NDArray[Any] | str) -> str:
    """Return the sha256, hexadecimal, of arrays (shape, dtype, numbers) and texts, in order."""
    checksum = hashlib.sha256()
    for value in inputs:
        if isinstance(value, str):
            head, data = f"text {len(value.encode())};", [value.encode()]
        else:
            head = f"array {value.dtype.str} {value.shape};"
            # In blocks of rows: a memory-mapped matrix may be larger than memory.
            step = max(1, (1 << 24) // max(value[:1].nbytes, 1)) if value.ndim else 1
            rows = np.atleast_1d(value)
            data = [
                np.ascontiguousarray(rows[start : start + step]).tobytes()
                for start in range(0, len(rows), step)
            ]
        checksum.update(head.encode())
        for block in data:
            checksum.update(block)
    return checksum.hexdigest()


def _read_activation(value: object) -> Activation:
    if value == "softmax" or value == "sigmoid":
        return value
    raise ValueError(f"activation {value!r}")


def _read_optional(read: Callable[[Any], FittedPart], value: object) -> FittedPart | None:
    return None if value is None else read(value)


def _read_scale_fit(value: dict[str, Any]) -> ScaleFit:
    return ScaleFit(**_check_finite(value))


def _read_conformal(value: dict[str, Any]) -> ConformalLimit:
    return ConformalLimit(**_check_finite(value))


def _check_finite(value: dict[str, Any]) -> dict[str, Any]:
    """Return the object after checking that all of its values are finite numbers."""
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{name} is {number!r}")
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}")
    return value


def _pack(array: npt.NDArray[Any], dtype: str) -> str:
    return base64.b64encode(array.astype(dtype).tobytes()).decode()


def _unpack(text: str, dtype: str) -> npt.NDArray[Any]:
    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
    return packed.astype(np.dtype(dtype).newbyteorder("="))


def _hubs_dict(hubs: HubBias) -> dict[str, Any]:
    return {
        "k": hubs.k,
        "alpha": hubs.alpha,
        "references": hubs.references,
        # Base64 rather than decimals: for a million labels 16 MB instead of 40, without rounding.
        "label_ids": _pack(hubs.label_ids, "<i8"),
        "bias": _pack(hubs.bias, "<f4"),
    }


def _read_hubs(value: dict[str, Any]) -> HubBias:
    ids, bias = _unpack(value["label_ids"], "<i8"), _unpack(value["bias"], "<f4")
    if len(ids) != len(bias):
        raise ValueError(f"{len(ids)} label ids but {len(bias)} biases")
    return HubBias(value["k"], value["alpha"], value["references"], ids, bias)


def _thresholds_dict(thresholds: PrecisionThresholds) -> dict[str, Any]:
    # JSON has no infinity.
    never = {NEVER: None}
    values = {field.name: getattr(thresholds, field.name) for field in fields(thresholds)}
    return values | {
        "overall": never.get(thresholds.overall, thresholds.overall),
        "label_ids": thresholds.label_ids.tolist(),
        "thresholds": [never.get(number, number) for number in thresholds.thresholds.tolist()],
    }


def _read_thresholds(value: dict[str, Any]) -> PrecisionThresholds:
    numbers = [NEVER if number is None else number for number in value["thresholds"]]
    if len(numbers) != len(value["label_ids"]):
        raise ValueError(f"{len(value['label_ids'])} label ids but {len(numbers)} thresholds")
    return PrecisionThresholds(
        **value
        | {
            "overall": NEVER if value["overall"] is None else value["overall"],
            "label_ids": np.array(value["label_ids"], dtype=np.int64),
            "thresholds": np.array(numbers, dtype=np.float64),
        }
    )
