"""Help texts with headings: commands by task, options by purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

_WIDEST_COLUMN = 30
"""Characters of the first column, as click limits it."""


def option_group(heading: str, *options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Return a decorator that adds options under a heading; use it with ``GroupedCommand``.

    Args:
        heading: title of the section in the help text.
        options: decorators such as those of ``click.option``, in the order of the help text.
    """

    def decorate(function: Function) -> Function:
        before = len(_parameters(function))
        for option in reversed(options):
            option(function)
        for parameter in _parameters(function)[before:]:
            parameter.heading = heading  # type: ignore[attr-defined]
        return function

    return decorate


class GroupedCommand(click.Command):
    """A command whose help text lists the options of each ``option_group`` under its heading."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each heading, then one for the options without a heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is None or not isinstance(parameter, click.Option):
                continue
            heading = getattr(parameter, "heading", None)
            (others if heading is None else sections.setdefault(heading, [])).append(row)
        sections["Other options" if sections else "Options"] = others
        _write_sections(formatter, sections)


class GroupedGroup(click.Group):
    """A group whose help text lists its commands under headings, in the order they were added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headings: dict[str, str] = {}

    def add_commands(self, heading: str, *commands: click.Command) -> None:
        """Add commands under a heading."""
        for command in commands:
            self.add_command(command)
            assert command.name is not None, "add_command refuses commands without a name"
            self._headings[command.name] = heading

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each heading, then one for the commands without a heading."""
        commands = {name: command for name, command in self.commands.items() if not command.hidden}
        limit = formatter.width - 6 - max(map(len, commands), default=0)
        sections: dict[str, list[tuple[str, str]]] = {}
        others: list[tuple[str, str]] = []
        for name, command in commands.items():
            heading = self._headings.get(name)
            rows = others if heading is None else sections.setdefault(heading, [])
            rows.append((name, command.get_short_help_str(limit)))
        sections["Other commands" if sections else "Commands"] = others
        _write_sections(formatter, sections)


def _parameters(function: Callable[..., Any]) -> list[click.Parameter]:
    """Return the parameters that click's decorators have added to a function so far."""
    parameters: list[click.Parameter] = getattr(function, "__click_params__", [])
    return parameters


def _write_sections(
    formatter: click.HelpFormatter, sections: Mapping[str, list[tuple[str, str]]]
) -> None:
    """Write definition lists whose second columns are aligned across sections."""
    terms = [term for rows in sections.values() for term, _ in rows]
    width = min(max(map(len, terms), default=0), _WIDEST_COLUMN)
    for heading, rows in sections.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl(
                    [(term.ljust(width) if text else term, text) for term, text in rows]
                )
