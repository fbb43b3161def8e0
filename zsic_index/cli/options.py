"""Options and exit codes that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zsic_index import builtin

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_SOME_REFUSED = 3
"""Exit code of a command that is done but refused some of its inputs."""


def _set_verbose(ctx: click.Context, _option: click.Parameter, verbose: bool) -> None:
    if verbose:
        ctx.meta["zsic.verbose"] = True


verbose_option = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_set_verbose,
    help="Show the trace of an error.",
)


def common_options(command: Command) -> Command:
    """Add the options of every command that works on a store."""
    command = verbose_option(command)
    return click.option(
        "--store",
        metavar="PATH_OR_URL",
        envvar="ZSIC_STORE",
        show_envvar=True,
        help="SQLite file, or any SQLAlchemy URL.  [default: the user's data folder]",
    )(command)


def absolute(path: Path) -> str:
    """Return a path as photos are known by: where they were found, not resolved."""
    return os.path.abspath(path)  # noqa: PTH100


class LabelFile(click.Path):
    """A label file: a path, or the name of one in the package."""

    name = "label file"

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the file's path."""
        if isinstance(value, str) and value.startswith(builtin.PREFIX):
            try:
                return builtin.label_file(value)
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


model_option = click.option(
    "-m",
    "--model",
    required=True,
    help="builtin:clip, builtin:siglip, a folder, or a Hub id.",
)


name_option = click.option("-n", "--name", required=True, help="Name of the index.")


revision_option = click.option("--revision", help="Branch, tag or commit of a Hub model.")


decode_option = click.option(
    "--decode",
    type=click.Choice(["scaled", "exact"]),
    default="scaled",
    show_default=True,
    help="scaled lets a JPEG's decoder scale it down, several times faster, for slightly other "
    "embeddings. Embeddings of one way are never taken for the other.",
)


def tokens_in(path: Path) -> tuple[str, ...]:
    """Return the tokens of a file: one a line, but for empty lines and comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


exact_decode_option = click.option(
    "--decode",
    type=click.Choice(["exact", "scaled"]),
    default="exact",
    show_default=True,
    help="scaled decodes large JPEGs several times faster, for slightly other numbers.",
)


device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."
)
