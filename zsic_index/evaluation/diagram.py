"""Geometry of the reliability diagram; the template ``evaluation_parts.html`` draws it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zsic_index.calibration.reliability import Reliability, ReliabilityBin
from zsic_index.formats.text import short_percent

_SIDE = 240.0
"""Side of the square that holds the bars."""

_LEFT, _TOP = 44.0, 10.0
"""Position of the square's upper left corner."""

_COUNTS = 34.0
"""Height of the strip of counts below the square."""

_GAP = 26.0
"""Distance between the square and the strip."""

_WIDTH = _LEFT + _SIDE + 18
_HEIGHT = _TOP + _SIDE + _GAP + _COUNTS + 18

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


BoxKind = Literal["accuracy", "above", "below", "answers"]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; ``kind`` is its CSS class."""

    kind: BoxKind
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin with its accuracy, its distance to the probability, and its number of answers."""

    bin: ReliabilityBin
    boxes: tuple[Box, Box, Box]


@dataclass(frozen=True, slots=True)
class AxisText:
    """The label of a tick or of an axis; a vertical one is turned around its position."""

    content: str
    x: float
    y: float
    anchor: Literal["middle", "end"] = "middle"
    is_vertical: bool = False


@dataclass(frozen=True, slots=True)
class ReliabilityDiagram:
    """Accuracy over probability with the diagonal, and a strip with the number of answers.

    Attributes:
        name: part of its title and of its id, such as ``before calibration``.
        reliability: the bins to draw.
        width: width of the view box.
        height: height of the view box.
        grid: SVG path of the horizontal lines.
        diagonal: SVG path of equal accuracy and probability.
        texts: labels of the ticks and axes.
        bars: one per bin.
    """

    name: str
    reliability: Reliability
    width: float
    height: float
    grid: str
    diagonal: str
    texts: tuple[AxisText, ...]
    bars: tuple[Bar, ...]


def lay_out(reliability: Reliability, name: str) -> ReliabilityDiagram:
    """Return the diagram of a reliability; see ``ReliabilityDiagram``."""
    most = max(bin.answers for bin in reliability.bins)
    return ReliabilityDiagram(
        name,
        reliability,
        _WIDTH,
        _HEIGHT,
        grid="".join(f"M{_x(0):.1f} {_y(tick):.1f}H{_x(1):.1f}" for tick in _TICKS),
        diagonal=f"M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}",
        texts=tuple(_texts()),
        bars=tuple(_bar(bin, most) for bin in reliability.bins),
    )


def _bar(bin: ReliabilityBin, most: int) -> Bar:
    left, width = _x(bin.low) + 0.5, max((bin.high - bin.low) * _SIDE - 1, 1.0)
    base = min(bin.accuracy, bin.probability)
    distance = abs(bin.accuracy - bin.probability) * _SIDE
    kind: BoxKind = "above" if bin.accuracy >= bin.probability else "below"
    count = _COUNTS * bin.answers / most
    return Bar(
        bin,
        (
            _box("accuracy", left, _y(base), width, base * _SIDE),
            _box(kind, left, _y(base) - distance, width, distance),
            _box("answers", left, _TOP + _SIDE + _GAP + _COUNTS - count, width, count),
        ),
    )


def _box(kind: BoxKind, left: float, top: float, width: float, height: float) -> Box:
    return Box(kind, *(round(length, 1) for length in (left, top, width, height)))


def _texts() -> Iterator[AxisText]:
    for tick in _TICKS:
        content = short_percent(tick)
        yield AxisText(content, _LEFT - 5, _y(tick) + 3.5, "end")
        yield AxisText(content, _x(tick), _y(0) + 13)
    yield AxisText("accuracy", 10, _y(0.5), is_vertical=True)
    yield AxisText("probability, and number of answers", _x(0.5), _HEIGHT - 5)


def _x(share: float) -> float:
    return _LEFT + share * _SIDE


def _y(share: float) -> float:
    return _TOP + (1 - share) * _SIDE
