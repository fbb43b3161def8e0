"""Percentages and aligned columns for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def write_columns(header: list[str], rows: list[list[str]], out: TextIO) -> None:
    """Write rows of text as aligned columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    make_console(out).print(table)


def make_console(out: TextIO) -> Console:
    """Return a console that writes to a terminal, pipe or file."""
    from rich.console import Console

    # A pipe or a file has no width of its own: columns must not be folded to fit the default.
    return Console(file=out, highlight=False, width=None if out.isatty() else 240)


def percent(probability: float) -> str:
    """Return a probability as a percentage with enough digits to tell small ones apart."""
    value = probability * 100
    if value >= 0.1 or value == 0:
        return f"{value:.1f} %"
    return f"{value:.1g} %" if value >= 1e-4 else "< 0.0001 %"


def short_percent(share: float) -> str:
    """Return a round share as a percentage without trailing zeros, such as 90 % or 97.5 %."""
    return f"{share * 100:g} %"
