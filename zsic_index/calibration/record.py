"""What was fitted, on what, as one record that can be kept beside an index."""

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
"""Of the JSON form."""

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class FittedOn:
    """What a calibration was fitted on.

    Attributes:
        images: how many images with labels; those without are counted by ``HubBias``.
        digest: of all that went in; see ``digest``.
        date: when, as the caller writes it (ISO 8601).
    """

    images: int
    digest: str
    date: str


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Everything that was fitted for one index.

    The index's own logit scale and bias stay what they are; this stands beside them. A calibrated
    logit is ``scale * (similarity - bias of the label) + bias``, and all else follows from logits.

    Attributes:
        activation: the model's.
        fit: logit scale and bias, before and after, fitted with ``hubs`` where there is one; None
            for the model's own.
        fitted_on: what it was fitted on.
        hubs: what is subtracted from similarities first; None for nothing.
        thresholds: probabilities from which on answers are accepted; None where none were fitted.
        conformal: the limit of prediction sets; None where none was fitted.
    """

    activation: Activation
    fit: ScaleFit | None
    fitted_on: FittedOn
    hubs: HubBias | None = None
    thresholds: PrecisionThresholds | None = None
    conformal: ConformalLimit | None = None

    def to_json(self) -> str:
        """Return a JSON object that ``from_json`` reads back, every number as it was."""
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
        """Read what ``to_json`` wrote.

        Raises:
            InputError: when it is not such an object, or of another version.
        """
        try:
            value = json.loads(text)
            version = value["version"]
            if version == VERSION:
                return cls(
                    activation=_activation(value["activation"]),
                    fit=_where_given(_scale_fit, value["fit"]),
                    fitted_on=FittedOn(**value["fitted_on"]),
                    hubs=_where_given(_hubs, value["hubs"]),
                    thresholds=_where_given(_thresholds, value["thresholds"]),
                    conformal=_where_given(_conformal, value["conformal"]),
                )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"not a calibration: {type(error).__name__}: {error}; calibrate again"
            ) from error
        raise InputError(
            f"a calibration of version {version!r}; this program reads {VERSION}: calibrate again"
        )


def required(found: Part | None, what: str, option: str) -> Part:
    """Return a part of a calibration.

    Raises:
        InputError: when it was not fitted; the message names the option that fits it.
    """
    if found is None:
        raise InputError(f"no {what} were fitted: run 'zsic-index calibrate' with {option}")
    return found


def digest(*inputs: npt.NDArray[Any] | str) -> str:
    """Return the sha256 over arrays (shape, dtype, numbers) and texts, in order, hexadecimal."""
    found = hashlib.sha256()
    for value in inputs:
        if isinstance(value, str):
            head, data = f"text {len(value.encode())};", [value.encode()]
        else:
            head = f"array {value.dtype.str} {value.shape};"
            # Some rows at a time: a memory-mapped matrix may be larger than memory.
            step = max(1, (1 << 24) // max(value[:1].nbytes, 1)) if value.ndim else 1
            rows = np.atleast_1d(value)
            data = [
                np.ascontiguousarray(rows[start : start + step]).tobytes()
                for start in range(0, len(rows), step)
            ]
        found.update(head.encode())
        for part in data:
            found.update(part)
    return found.hexdigest()


def _activation(value: object) -> Activation:
    if value == "softmax" or value == "sigmoid":
        return value
    raise ValueError(f"activation {value!r}")


def _where_given(read: Callable[[Any], Part], value: object) -> Part | None:
    return None if value is None else read(value)


def _scale_fit(value: dict[str, Any]) -> ScaleFit:
    return ScaleFit(**_numbers(value))


def _conformal(value: dict[str, Any]) -> ConformalLimit:
    return ConformalLimit(**_numbers(value))


def _numbers(value: dict[str, Any]) -> dict[str, Any]:
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{name} is {number!r}")
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}")
    return value


def _pack(array: npt.NDArray[Any], dtype: str) -> str:
    return base64.b64encode(array.astype(dtype).tobytes()).decode()


def _unpack(text: str, dtype: str) -> npt.NDArray[Any]:
    found = np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
    return found.astype(np.dtype(dtype).newbyteorder("="))


def _hubs_dict(hubs: HubBias) -> dict[str, Any]:
    return {
        "k": hubs.k,
        "alpha": hubs.alpha,
        "references": hubs.references,
        # A million labels: 16 MB instead of 40, and no digit lost.
        "label_ids": _pack(hubs.label_ids, "<i8"),
        "bias": _pack(hubs.bias, "<f4"),
    }


def _hubs(value: dict[str, Any]) -> HubBias:
    ids, bias = _unpack(value["label_ids"], "<i8"), _unpack(value["bias"], "<f4")
    if len(ids) != len(bias):
        raise ValueError(f"{len(ids)} label ids but {len(bias)} biases")
    return HubBias(value["k"], value["alpha"], value["references"], ids, bias)


def _thresholds_dict(thresholds: PrecisionThresholds) -> dict[str, Any]:
    never = {NEVER: None}
    found = {item.name: getattr(thresholds, item.name) for item in fields(thresholds)}
    return found | {
        "overall": never.get(thresholds.overall, thresholds.overall),
        "label_ids": thresholds.label_ids.tolist(),
        "thresholds": [never.get(number, number) for number in thresholds.thresholds.tolist()],
    }


def _thresholds(value: dict[str, Any]) -> PrecisionThresholds:
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
