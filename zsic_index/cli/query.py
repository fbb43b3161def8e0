"""The command ``query``: classify images with an index or a service."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from zsic_index.cli.help import GroupedCommand, option_group
from zsic_index.cli.options import (
    EXIT_SOME_REFUSED,
    device_option,
    exact_decode_option,
    read_tokens,
    runtime_option,
    store_option,
    verbose_option,
)
from zsic_index.cli.query_options import query_of, query_options
from zsic_index.errors import ImageError
from zsic_index.formats.predictions import FORMATS, ImagePredictions, write_predictions
from zsic_index.querying.options import OptionGroup
from zsic_index.querying.query import OPTIONS, Query
from zsic_index.records import Decision

if TYPE_CHECKING:
    from zsic_index.images.opening import ImageSource

    ImageClassifier = Callable[[Iterable[ImageSource]], Iterator[Decision | ImageError]]
    """From images to a decision about each, or the error with which it is refused."""

_LOCAL = (
    *("store", "device", "runtime", "decode", "keep_images"),
    *(option.name for option in OPTIONS.values() if option.local),
)
"""Parameters that need the index itself; for a service its operator has chosen the rest."""

_label_option, *_other_label_options = query_options(OptionGroup.LABELS)


@click.command("query", cls=GroupedCommand)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@option_group(
    "Index and where it runs",
    click.option(
        "-n",
        "--name",
        help="Name of the index. With --server it may be left out if only one is served.",
    ),
    store_option,
    device_option,
    runtime_option,
    click.option(
        "--server",
        metavar="URL",
        help="Ask a service instead (see serve), such as http://127.0.0.1:8000. No model is "
        "loaded.",
    ),
    click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File whose first line is a token of the service; ZSIC_TOKEN is used otherwise.",
    ),
)
@option_group(
    "Images",
    exact_decode_option,
    click.option(
        "--keep-images",
        is_flag=True,
        help="Keep image embeddings in the store: the same files need no model the next time.",
    ),
)
@option_group(
    OptionGroup.LABELS,
    _label_option,
    click.option(
        "--labels",
        "labels_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The same from a label file, of the kinds that build takes.",
    ),
    *_other_label_options,
)
@option_group(OptionGroup.DECISIONS, *query_options(OptionGroup.DECISIONS))
@option_group(
    OptionGroup.OUTPUT,
    *query_options(OptionGroup.OUTPUT),
    click.option(
        "-f",
        "--format",
        "format",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Format of the output.",
    ),
)
@verbose_option
@click.pass_context
def query_command(
    context: click.Context,
    /,
    images: tuple[str, ...],
    *,
    name: str | None,
    store: str | None,
    device: str,
    runtime: Any,
    server: str | None,
    token_file: Path | None,
    decode: Any,
    keep_images: bool,
    labels_file: Path | None,
    format: str,
    **options: Any,
) -> None:
    """Classify images against an index.

    IMAGE is a file, a folder (searched with its subfolders), a glob pattern, or - for one image
    on standard input. An image that cannot be used is named on standard error, the rest go on,
    and the exit code is 3.
    """
    _check_where(context)
    if labels_file is not None:
        options["labels"] = [*options["labels"], *_read_labels(labels_file)]
    query = query_of(options)
    counts = {"done": 0, "refused": 0}
    names: list[str] = []

    def sources() -> Iterator[ImageSource]:
        for image in images:
            is_empty = True
            for image_name, source in _expand(image):
                is_empty = False
                names.append(image_name)
                yield source
            if is_empty:
                counts["refused"] += 1
                click.echo(f"refused: {image}: no images there", err=True)

    def classified(decisions: Iterator[Decision | ImageError]) -> Iterator[ImagePredictions]:
        for number, decision in enumerate(decisions):
            image_name = names[number]
            if isinstance(decision, ImageError):
                counts["refused"] += 1
                click.echo(f"refused: {_with_name(image_name, decision)}", err=True)
                continue
            counts["done"] += 1
            yield ImagePredictions(image_name, decision.predictions, decision.reason)

    opened = (
        _open_index(
            query,
            name or "",
            store=store,
            device=device,
            runtime=runtime,
            decode=decode,
            keep_images=keep_images,
        )
        if server is None
        else _open_service(query, name, server, token_file)
    )
    with opened as classify:
        write_predictions(classified(classify(sources())), format, sys.stdout, nodes=query.of_nodes)
    if counts["refused"]:
        total = sum(counts.values())
        click.echo(f"{total} inputs: {counts['done']} done, {counts['refused']} refused", err=True)
        sys.exit(EXIT_SOME_REFUSED)


@contextmanager
def _open_index(query: Query, name: str, **options: Any) -> Iterator[ImageClassifier]:
    """Open an index; the options are those of ``LabelIndex.open``."""
    from zsic_index.label_index import LabelIndex
    from zsic_index.querying.compiled import compile_query

    with LabelIndex.open(name, **options) as index:
        compiled = compile_query(query, index)
        yield lambda images: index.encoder.stream(images, compiled)


@contextmanager
def _open_service(
    query: Query, name: str | None, server: str, token_file: Path | None
) -> Iterator[ImageClassifier]:
    from zsic_index.client import Client

    token = None
    if token_file is not None:
        token = next(iter(read_tokens(token_file)), None)
        if token is None:
            raise click.BadParameter(f"{token_file}: no token in it", param_hint="--token-file")
    with Client(server, index=name, token=token) as client:
        yield lambda images: client.stream_query(images, query)


def _check_where(context: click.Context) -> None:
    """Refuse options of a local index with --server, and those of a service without it."""
    values = context.params
    parameters = {parameter.name: parameter for parameter in context.command.params}
    if values["server"] is None:
        if values["name"] is None:
            raise click.MissingParameter(ctx=context, param=parameters["name"])
        if values["token_file"] is not None:
            raise click.UsageError("--token-file goes with --server: give that as well")
        return
    refused = [
        parameters[name].opts[-1]
        for name in _LOCAL
        # The environment variable ZSIC_STORE may be set for other commands.
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if values["thresholds"] not in (None, "calibrated"):
        refused.append("--thresholds FILE")
    if refused:
        raise click.UsageError(
            f"{', '.join(refused)} cannot be used with --server: the service has the index"
        )


def _read_labels(path: Path) -> tuple[str, ...]:
    from zsic_index import taxonomy

    return taxonomy.read(path).labels


def _expand(image: str) -> Iterator[tuple[str, ImageSource]]:
    """Yield the name and the source of each image that an IMAGE argument stands for."""
    from zsic_index.images.opening import list_image_files

    path = Path(image)
    if image == "-":
        yield "-", sys.stdin.buffer.read()
    elif path.is_dir():
        for child in list_image_files(path):
            yield str(child), child
    elif not path.exists() and glob.has_magic(image):
        # Path.glob refuses absolute patterns.
        for match in sorted(glob.glob(image, recursive=True)):  # noqa: PTH207
            if Path(match).is_file():
                yield match, match
    else:
        yield image, path


def _with_name(name: str, error: ImageError) -> str:
    """Return an error's message in one line that begins with the image's name."""
    message = " ".join(str(error).split())
    return message if message.startswith(name) else f"{name}: {message}"
