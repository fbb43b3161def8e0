"""Options of ``query`` on the command line, made from the declarations of ``Query``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from zsic_index.errors import InputError
from zsic_index.querying.options import OptionGroup, QueryOption
from zsic_index.querying.query import OPTIONS, Query, parse_floor
from zsic_index.querying.thresholds import read_thresholds

_METAVARS: dict[object, str] = {int: "N", float | None: "P"}
"""Placeholders in the help text for counts and probabilities."""


def query_options(group: OptionGroup) -> list[Callable[[Any], Any]]:
    """Return a decorator for each option of a group, in the order of ``Query``."""
    return [_click_option(option) for option in OPTIONS.values() if option.group is group]


def query_of(values: Mapping[str, Any]) -> Query:
    """Return a query from the values of its options on the command line.

    Raises:
        click.UsageError: for options that exclude each other, or a floor that is not RANK=FLOOR.
        InputError: for a thresholds file that cannot be read.
    """
    values = dict(values)
    if values["threshold"] is not None and values["thresholds"] is not None:
        raise click.UsageError("give one of --threshold and --thresholds ('*' is every label)")
    if values["thresholds"] not in (None, "calibrated"):
        values["thresholds"] = read_thresholds(values["thresholds"])
    values["floors"] = dict(map(_floor, values["floors"]))
    try:
        return Query(**values)
    except InputError as error:
        raise click.UsageError(str(error)) from error


def _click_option(option: QueryOption) -> Callable[[Any], Any]:
    settings: dict[str, Any] = {"metavar": option.metavar or _METAVARS.get(option.type)}
    help_text = " ".join(filter(None, [option.description, option.cli_help]))
    if option.type is bool:
        settings["is_flag"] = True
    elif option.type == Sequence[str] or option.type == Mapping[str, float] | None:
        settings["multiple"] = True
        help_text += " Repeatable."
    elif option.type is int:
        settings |= {"type": click.IntRange(option.minimum, option.maximum)}
    elif option.type == float | None:
        settings["type"] = click.FloatRange(
            option.minimum, option.maximum, min_open=option.exclude_minimum
        )
    if option.type is not bool and option.default not in (None, ()):
        settings |= {"default": option.default, "show_default": True}
    return click.option(*option.flags, option.name, help=help_text, **settings)


def _floor(text: str) -> tuple[str, float]:
    try:
        return parse_floor(text)
    except InputError as error:
        raise click.UsageError(f"--floor {error}") from error
