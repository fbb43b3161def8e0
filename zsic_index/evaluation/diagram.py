"""The reliability diagram as inline SVG."""

from __future__ import annotations

from zsic_index.calibration.reliability import Reliability, ReliabilityBin
from zsic_index.formats.text import percent

_SIDE = 240.0
"""Of the square that the bars stand in."""

_LEFT, _TOP = 44.0, 10.0

_COUNTS = 34.0
"""Height of the strip below that shows where the answers are."""

_GAP = 26.0
"""Between the square and the strip."""

_WIDTH = _LEFT + _SIDE + 18
_HEIGHT = _TOP + _SIDE + _GAP + _COUNTS + 18

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def draw(found: Reliability, name: str) -> str:
    """Return an ``<svg>``: accuracy over probability, the diagonal, and how many answers where.

    Args:
        found: what to draw.
        name: what it shows, in plain words without any of ``<>&``; for screen readers, and the
            id of its title.
    """
    ident = "diagram-" + "-".join(name.split())
    most = max(one.answers for one in found.bins)
    bars = "\n".join(_bar(one, most) for one in found.bins)
    corner = f"M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}"
    return f"""<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-labelledby="{ident}">
<title id="{ident}">Reliability {name}: expected calibration error {percent(found.error)} over \
{found.answers:,} answers</title>
{_axes()}
{bars}
<path class="ideal" d="{corner}"/>
</svg>"""


def _bar(one: ReliabilityBin, most: int) -> str:
    left, width = _x(one.low) + 0.5, max((one.high - one.low) * _SIDE - 1, 1.0)
    tall = _COUNTS * one.answers / most
    base = min(one.accuracy, one.probability)
    apart = abs(one.accuracy - one.probability) * _SIDE
    kind = "above" if one.accuracy >= one.probability else "below"
    return f"""<g><title>{percent(one.low)} to {percent(one.high)}: {one.answers:,} answers, mean \
probability {percent(one.probability)}, right {percent(one.accuracy)}</title>
<rect class="accuracy" x="{left:.1f}" y="{_y(base):.1f}" width="{width:.1f}" \
height="{base * _SIDE:.1f}"/>
<rect class="{kind}" x="{left:.1f}" y="{_y(base) - apart:.1f}" width="{width:.1f}" \
height="{apart:.1f}"/>
<rect class="answers" x="{left:.1f}" y="{_TOP + _SIDE + _GAP + _COUNTS - tall:.1f}" \
width="{width:.1f}" height="{tall:.1f}"/></g>"""


def _axes() -> str:
    lines, words = [], []
    for tick in _TICKS:
        lines.append(f"M{_x(0):.1f} {_y(tick):.1f}H{_x(1):.1f}")
        words.append(
            f'<text x="{_LEFT - 5:g}" y="{_y(tick) + 3.5:.1f}" text-anchor="end">{tick:.0%}</text>'
            f'<text x="{_x(tick):.1f}" y="{_y(0) + 13:.1f}" text-anchor="middle">{tick:.0%}</text>'
        )
    middle = _y(0.5)
    words.append(
        f'<text class="name" transform="rotate(-90 10 {middle:.1f})" x="10" y="{middle:.1f}" '
        f'text-anchor="middle">right</text>'
        f'<text class="name" x="{_x(0.5):.1f}" y="{_HEIGHT - 5:g}" text-anchor="middle">'
        f"probability, and how many answers</text>"
    )
    return f'<path class="grid" d="{"".join(lines)}"/>' + "".join(words)


def _x(value: float) -> float:
    return _LEFT + value * _SIDE


def _y(value: float) -> float:
    return _TOP + (1 - value) * _SIDE
