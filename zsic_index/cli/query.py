"""Asking an index: ``query``."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from zsic_index.cli.options import (
    EXIT_SOME_REFUSED,
    common_options,
    device_option,
    exact_decode_option,
    tokens_in,
)
from zsic_index.errors import ImageError, InputError
from zsic_index.formats.predictions import FORMATS, Classified, write
from zsic_index.querying.query import Query
from zsic_index.records import Decision

if TYPE_CHECKING:
    from zsic_index.images.opening import ImageSource

    ImageClassifier = Callable[[Iterable[ImageSource]], Iterator[Decision | ImageError]]
    """From images to what is said of each, or why it is refused."""

_LOCAL_ONLY = ("store", "device", "decode", "keep_images", "encode_missing", "negatives")
"""What is for who has the index; who runs a service has decided the rest."""


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-n",
    "--name",
    help="Name of the index. With --server it may be left out where only one is served.",
)
@click.option(
    "--server",
    metavar="URL",
    help="Ask a service instead (see serve), such as http://127.0.0.1:8000. No model is loaded.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file whose first line opens the service; ZSIC_TOKEN holds a token as well.",
)
@click.option(
    "-k", "--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Labels shown."
)
@click.option(
    "-f",
    "--format",
    "format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
)
@click.option(
    "--label",
    "chosen",
    multiple=True,
    metavar="LABEL",
    help="Only among these labels of the index: the probabilities are over them. May be given "
    "several times.",
)
@click.option(
    "--labels",
    "chosen_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same from a file, of the kinds that build takes.",
)
@click.option(
    "--encode-missing",
    is_flag=True,
    help="Encode chosen labels that the index does not have, and keep them for the next time.",
)
@click.option("--over-index", is_flag=True, help="Also give each probability over the whole index.")
@click.option("--under", metavar="NODE", help="Only among the labels below a node of the taxonomy.")
@click.option("--rank", help="Roll up to a rank of the taxonomy, or to 'depth 2' and so on.")
@click.option(
    "--deepest",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FLOOR",
    help="The deepest node of the taxonomy whose probability reaches FLOOR.",
)
@click.option(
    "--floor",
    "floors",
    multiple=True,
    metavar="RANK=FLOOR",
    help="Another floor for nodes of a rank, with --deepest. May be given several times.",
)
@click.option(
    "--independent",
    is_flag=True,
    help="Sigmoid models: a node's probability is that of at least one of its labels, not the "
    "largest.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Leave out labels that are less probable.",
)
@click.option(
    "--thresholds",
    metavar="FILE",
    help="The same for each label or rank, from a .csv or .json file with label or rank, and "
    "threshold; 'calibrated' for those that calibrate has fitted.",
)
@click.option(
    "--sets",
    "as_sets",
    is_flag=True,
    help="All labels of the prediction set that calibrate --coverage has fitted.",
)
@click.option(
    "--none-below",
    type=click.FloatRange(0, 1),
    help="Say 'none of these' where the best label is less probable.",
)
@click.option(
    "--none-within",
    type=click.FloatRange(0, 1),
    help="Say 'none of these' where the best label is so little ahead of the second.",
)
@click.option(
    "--negative",
    "negatives",
    multiple=True,
    metavar="NAME",
    help="Something that is none of the labels: where such have half of the probability, say "
    "'none of these'. May be given several times.",
)
@click.option("--calibrated", is_flag=True, help="Use what calibrate has fitted for the index.")
@click.option("--lang", metavar="TAG", help="Print names in this language, where there are any.")
@exact_decode_option
@click.option(
    "--keep-images",
    is_flag=True,
    help="Keep image embeddings in the store: the same files again cost no model.",
)
@device_option
@common_options
@click.pass_context
def query(
    context: click.Context,
    images: tuple[str, ...],
    name: str | None,
    server: str | None,
    token_file: Path | None,
    top_k: int,
    format: str,
    chosen: tuple[str, ...],
    chosen_file: Path | None,
    encode_missing: bool,
    over_index: bool,
    under: str | None,
    rank: str | None,
    deepest: float | None,
    floors: tuple[str, ...],
    independent: bool,
    threshold: float | None,
    thresholds: str | None,
    as_sets: bool,
    none_below: float | None,
    none_within: float | None,
    negatives: tuple[str, ...],
    calibrated: bool,
    lang: str | None,
    decode: Any,
    keep_images: bool,
    device: str,
    store: str | None,
) -> None:
    """Classify images against an index.

    IMAGE is a file, a folder (searched with its subfolders), a glob pattern, or - for one image
    on standard input. An image that cannot be used is named on standard error, the rest go on,
    and the exit code is 3.
    """
    if threshold is not None and thresholds is not None:
        raise click.UsageError("give one of --threshold and --thresholds ('*' is every label)")
    _check_where(context)
    query = _asked(
        top_k=top_k,
        labels=[*chosen, *(_labels_in(chosen_file) if chosen_file else ())],
        encode_missing=encode_missing,
        over_index=over_index,
        under=under,
        rank=rank,
        deepest=deepest,
        floors=_floors(floors),
        independent=independent,
        threshold=threshold,
        thresholds=_thresholds(thresholds),
        sets=as_sets,
        none_below=none_below,
        none_within=none_within,
        negatives=negatives,
        calibrated=calibrated,
        lang=lang,
    )
    counts = {"done": 0, "refused": 0}
    names: list[str] = []

    def sources() -> Iterator[ImageSource]:
        for image in images:
            found = False
            for shown, source in _expand(image):
                found = True
                names.append(shown)
                yield source
            if not found:
                counts["refused"] += 1
                click.echo(f"refused: {image}: no images there", err=True)

    def results(found: Iterator[Decision | ImageError]) -> Iterator[Classified]:
        for number, result in enumerate(found):
            shown = names[number]
            if isinstance(result, ImageError):
                counts["refused"] += 1
                click.echo(f"refused: {_named(shown, result)}", err=True)
                continue
            counts["done"] += 1
            yield Classified(shown, result.predictions, result.reason)

    asking = (
        _asking_here(query, name or "", store, device, decode, keep_images)
        if server is None
        else _asking_service(query, name, server, token_file)
    )
    with asking as answers:
        write(results(answers(sources())), format, sys.stdout, nodes=query.of_nodes)
    if counts["refused"]:
        total = sum(counts.values())
        click.echo(f"{total} inputs: {counts['done']} done, {counts['refused']} refused", err=True)
        sys.exit(EXIT_SOME_REFUSED)


def _asked(**asked: Any) -> Query:
    """Return a query; options that exclude each other are wrong usage."""
    try:
        return Query(**asked)
    except InputError as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def _asking_here(
    query: Query, name: str, store: str | None, device: str, decode: Any, keep_images: bool
) -> Iterator[ImageClassifier]:
    from zsic_index.label_index import LabelIndex
    from zsic_index.querying.compiled import compile_query

    with LabelIndex.open(
        name, store=store, device=device, decode=decode, keep_images=keep_images
    ) as index:
        answer = compile_query(query, index)
        yield lambda images: index.encoder.stream(images, answer)


@contextmanager
def _asking_service(
    query: Query, name: str | None, server: str, token_file: Path | None
) -> Iterator[ImageClassifier]:
    from zsic_index.client import Client

    token = None
    if token_file is not None:
        token = next(iter(tokens_in(token_file)), None)
        if token is None:
            raise click.BadParameter(f"{token_file}: no token in it", param_hint="--token-file")
    with Client(server, index=name, token=token) as client:
        yield lambda images: client.stream_answers(images, query)


def _check_where(context: click.Context) -> None:
    """Refuse options that go with the other of an index here and a service."""
    asked = context.params
    options = {one.name: one for one in context.command.params}
    if asked["server"] is None:
        if asked["name"] is None:
            raise click.MissingParameter(ctx=context, param=options["name"])
        if asked["token_file"] is not None:
            raise click.UsageError("--token-file goes with --server: give that as well")
        return
    given = [
        options[name].opts[-1]
        for name in _LOCAL_ONLY
        # ZSIC_STORE may well be set.
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if asked["thresholds"] not in (None, "calibrated"):
        given.append("--thresholds FILE")
    if given:
        raise click.UsageError(
            f"{', '.join(given)} cannot be used with --server: the service has the index"
        )


def _labels_in(path: Path) -> tuple[str, ...]:
    from zsic_index import taxonomy

    return taxonomy.read(path).labels


def _thresholds(given: str | None) -> Any:
    if given is None or given == "calibrated":
        return given
    from zsic_index.querying.thresholds import read_thresholds

    return read_thresholds(given)


def _floors(given: tuple[str, ...]) -> dict[str, float]:
    """Return floors by rank from RANK=FLOOR."""
    found = {}
    for entry in given:
        rank, sign, floor = entry.rpartition("=")
        try:
            found[rank] = float(floor)
        except ValueError:
            sign = ""
        if not sign or not rank:
            raise click.UsageError(f"--floor {entry!r}: give RANK=FLOOR, such as species=0.9")
    return found


def _expand(image: str) -> Iterator[tuple[str, ImageSource]]:
    """Yield (name, source) for what one IMAGE argument stands for."""
    from zsic_index.images.opening import files_below

    path = Path(image)
    if image == "-":
        yield "-", sys.stdin.buffer.read()
    elif path.is_dir():
        for child in files_below(path):
            yield str(child), child
    elif not path.exists() and glob.has_magic(image):
        # Path.glob takes no absolute patterns.
        for match in sorted(glob.glob(image, recursive=True)):  # noqa: PTH207
            if Path(match).is_file():
                yield match, match
    else:
        yield image, path


def _named(shown: str, error: ImageError) -> str:
    message = " ".join(str(error).split())
    return message if message.startswith(shown) else f"{shown}: {message}"
