"""Declarations of a query's options, from which each interface derives its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from numbers import Real
from typing import Any, get_type_hints

from zsic_index.errors import InputError
from zsic_index.records import field_descriptions


class OptionGroup(StrEnum):
    """Headings for the options of a query."""

    LABELS = "Labels and nodes"
    DECISIONS = "Decisions"
    OUTPUT = "Names and output"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOption:
    """One option of a query.

    Attributes:
        name: its name in Python and in JSON.
        type: its type hint.
        default: its default value.
        description: one or two sentences, taken from the docstring of ``Query``.
        group: its heading in help texts and tables.
        flags: its spellings on the command line.
        metavar: placeholder for its value on the command line.
        cli_help: sentence that only help on the command line needs.
        minimum: least allowed value; None if unbounded.
        maximum: greatest allowed value; None if unbounded.
        exclude_minimum: whether values have to be above ``minimum``.
        local: whether it needs the index itself, so that no service offers it.
    """

    name: str
    type: Any
    default: Any
    description: str
    group: OptionGroup
    flags: tuple[str, ...]
    metavar: str | None
    cli_help: str
    minimum: int | None
    maximum: int | None
    exclude_minimum: bool
    local: bool

    def check(self, value: Any) -> None:
        """Check a value against the bounds.

        Raises:
            InputError: if it is not a number within the bounds.
        """
        if self.minimum is None:
            return
        if isinstance(value, Real):
            number = float(value)
            is_above = number > self.minimum if self.exclude_minimum else number >= self.minimum
            if is_above and (self.maximum is None or number <= self.maximum):
                return
        if self.maximum is None:
            bounds = f"at least {self.minimum}"
        elif self.exclude_minimum:
            bounds = f"above {self.minimum} and up to {self.maximum}"
        else:
            bounds = f"from {self.minimum} to {self.maximum}"
        raise InputError(f"{self.name} is {value}; it must be {bounds}")


def option(
    default: Any,
    group: OptionGroup,
    *flags: str,
    metavar: str | None = None,
    cli_help: str = "",
    minimum: int | None = None,
    maximum: int | None = None,
    exclude_minimum: bool = False,
    local: bool = False,
) -> Any:
    """Return a dataclass field that declares an option; see ``QueryOption`` for the arguments."""
    return field(
        default=default,
        metadata={
            "group": group,
            "flags": flags,
            "metavar": metavar,
            "cli_help": cli_help,
            "minimum": minimum,
            "maximum": maximum,
            "exclude_minimum": exclude_minimum,
            "local": local,
        },
    )


def read_options(query_class: type) -> Mapping[str, QueryOption]:
    """Return the options that a dataclass declares, by name, in order."""
    hints = get_type_hints(query_class)
    descriptions = field_descriptions(query_class)
    return {
        declared.name: QueryOption(
            name=declared.name,
            type=hints[declared.name],
            default=declared.default,
            description=descriptions[declared.name],
            **declared.metadata,
        )
        for declared in fields(query_class)
    }
