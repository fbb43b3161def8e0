"""Options and exit codes that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from zsic_index import builtin
from zsic_index.records import Runtime

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_SOME_REFUSED = 3
"""Exit code of a command that finished but refused some of its inputs."""


def _set_verbose(ctx: click.Context, _option: click.Parameter, verbose: bool) -> None:
    if verbose:
        ctx.meta["zsic.verbose"] = True


def _set_quiet(ctx: click.Context, _option: click.Parameter, quiet: bool) -> bool:
    if quiet:
        from zsic_index.encoders.hub import quiet_downloads

        ctx.with_resource(quiet_downloads())
    return quiet


verbose_option = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_set_verbose,
    help="Print the traceback of an error.",
)


def quiet_option(help_text: str) -> Callable[[Command], Command]:
    """Return the option --quiet, which also hides the progress of downloads."""
    return click.option("--quiet", is_flag=True, callback=_set_quiet, help=help_text)


store_option = click.option(
    "--store",
    metavar="PATH_OR_URL",
    envvar="ZSIC_STORE",
    show_envvar=True,
    help="SQLite file or SQLAlchemy URL.  [default: file in the user's data folder]",
)

model_option = click.option(
    "-m",
    "--model",
    required=True,
    metavar="MODEL",
    help="Model: builtin:clip, builtin:siglip, a folder, or a Hub id.",
)

name_option = click.option("-n", "--name", metavar="NAME", required=True, help="Name of the index.")

revision_option = click.option(
    "--revision", metavar="REVISION", help="Branch, tag or commit of a model from the Hub."
)

lang_option = click.option(
    "--lang", metavar="TAG", help="Language of the names, where the labels have translations."
)

under_option = click.option(
    "--under",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder: only photos in and below it.",
)

decode_option = click.option(
    "--decode",
    type=click.Choice(["scaled", "exact"]),
    default="scaled",
    show_default=True,
    help="How JPEGs are decoded. scaled is several times faster for large ones and changes the "
    "embeddings slightly; the store keeps the embeddings of the two apart.",
)

exact_decode_option = click.option(
    "--decode",
    type=click.Choice(["exact", "scaled"]),
    default="exact",
    show_default=True,
    help="How JPEGs are decoded. scaled is several times faster for large ones and changes the "
    "probabilities slightly.",
)

device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="Device for the model: auto, cpu, cuda, cuda:N or mps.",
)

runtime_option = click.option(
    "--runtime",
    type=click.Choice(get_args(Runtime)),
    envvar="ZSIC_RUNTIME",
    show_envvar=True,
    help="Library that runs the vision tower. onnx is faster on a CPU and starts without torch; "
    "onnx-int8 rounds its weights (see onnx write).  [default: auto, which is onnx on a CPU if the "
    "extra is installed and the embeddings are those of torch]",
)


def common_options(command: Command) -> Command:
    """Add --store and --verbose to a command."""
    return store_option(verbose_option(command))


class LabelFile(click.Path):
    """The path of a label file, or the name of a built-in one such as builtin:emoji."""

    name = "label file"

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the label file."""
        if isinstance(value, str) and value.startswith(builtin.PREFIX):
            try:
                return builtin.label_file(value)
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


def absolute_path(path: Path) -> str:
    """Return an absolute path without resolving symbolic links, as the store records photos."""
    return os.path.abspath(path)  # noqa: PTH100


def read_tokens(path: Path) -> tuple[str, ...]:
    """Return the tokens of a file, one per line; empty lines and # comments are skipped."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
