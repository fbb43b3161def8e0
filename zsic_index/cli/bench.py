"""The ``bench`` commands: options, and printing of comparisons."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from zsic_index.cli.options import Command, verbose_option
from zsic_index.formats.text import write_columns

if TYPE_CHECKING:
    from zsic_index.bench.timing import Comparison


rounds_option = click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Number of timed rounds.",
)
model_to_time_option = click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="Model: builtin:clip, a folder, or a Hub id.  [default: a random CLIP of ViT-B/32's size]",
)
dim_option = click.option(
    "--dim",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    metavar="D",
    help="Dimensions of an embedding.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def bench() -> None:
    """Time zsic-index against its peers on this machine."""


def labels_option(default: int) -> Callable[[Command], Command]:
    """Return the option --labels with a default."""
    return click.option(
        "--labels",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        metavar="N",
        help="Number of labels.",
    )


def images_option(default: int) -> Callable[[Command], Command]:
    """Return the option --images with a default."""
    return click.option(
        "--images",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        metavar="B",
        help="Number of images.",
    )


@bench.command("scan")
@labels_option(100_000)
@dim_option
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 8, 64, 256),
    show_default=True,
    metavar="B",
    help="Number of images per batch. Repeatable.",
)
@click.option("--half", is_flag=True, help="Scan half-precision embeddings of 2 * D bytes.")
@rounds_option
@json_option
@verbose_option
def time_scan(
    labels: int, dim: int, batches: tuple[int, ...], half: bool, rounds: int, as_json: bool
) -> None:
    """Time the exact scan against FAISS and bare matrix products.

    Importing a million labels of 512 dimensions takes about two minutes and 9 GB of memory; with
    --half, 1 GB.
    """
    from zsic_index.bench import half_scan, scan

    run = half_scan.run if half else scan.run
    _print_comparisons(run(labels=labels, dim=dim, batches=batches, rounds=rounds), as_json=as_json)


@bench.command("query")
@labels_option(1_000)
@images_option(32)
@model_to_time_option
@rounds_option
@json_option
@verbose_option
def time_query(labels: int, images: int, model: str | None, rounds: int, as_json: bool) -> None:
    """Time query against transformers' pipeline and the vision tower."""
    from zsic_index.bench import query

    comparison = query.run(labels=labels, images=images, model=model, rounds=rounds)
    _print_comparisons([comparison], as_json=as_json)


@bench.command("build")
@labels_option(10_000)
@model_to_time_option
@rounds_option
@json_option
@verbose_option
def time_build(labels: int, model: str | None, rounds: int, as_json: bool) -> None:
    """Time build against a loop over labels and the text tower."""
    from zsic_index.bench import build

    _print_comparisons([build.run(labels=labels, model=model, rounds=rounds)], as_json=as_json)


@bench.command("roll-up")
@labels_option(35_000)
@images_option(1_000)
@dim_option
@rounds_option
@json_option
@verbose_option
def time_roll_up(labels: int, images: int, dim: int, rounds: int, as_json: bool) -> None:
    """Time rolling up to a rank against the scan alone."""
    from zsic_index.bench import roll_up

    comparison = roll_up.run(labels=labels, images=images, dim=dim, rounds=rounds)
    _print_comparisons([comparison], as_json=as_json)


@bench.command("open")
@labels_option(100_000)
@dim_option
@rounds_option
@json_option
@verbose_option
def time_open(labels: int, dim: int, rounds: int, as_json: bool) -> None:
    """Time the first answer of a new process, and a rebuild."""
    from zsic_index.bench import open as opening

    _print_comparisons([opening.run(labels=labels, dim=dim, rounds=rounds)], as_json=as_json)


@bench.command("drop-in")
@labels_option(1_000)
@model_to_time_option
@rounds_option
@json_option
@verbose_option
def time_drop_in(labels: int, model: str | None, rounds: int, as_json: bool) -> None:
    """Time the drop-in pipeline against transformers' own."""
    from zsic_index.bench import drop_in

    _print_comparisons([drop_in.run(labels=labels, model=model, rounds=rounds)], as_json=as_json)


@bench.command("tag")
@labels_option(1_000)
@click.option(
    "--photos",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Number of new photos, which are embedded.",
)
@click.option(
    "--files",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Number of unchanged files.",
)
@click.option(
    "--embeddings",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Number of stored embeddings that are tagged with a new taxonomy.",
)
@model_to_time_option
@rounds_option
@json_option
@verbose_option
def time_tag(
    labels: int,
    photos: int,
    files: int,
    embeddings: int,
    model: str | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Time tag on new, unchanged and embedded photos.

    New photos are compared with decoding and the vision tower alone, unchanged files with a bare
    directory walk.
    """
    from zsic_index.bench import tag

    comparisons = tag.run(
        photos=photos,
        files=files,
        embeddings=embeddings,
        labels=labels,
        model=model,
        rounds=rounds,
    )
    _print_comparisons(comparisons, as_json=as_json)


def _print_comparisons(comparisons: Iterable[Comparison], *, as_json: bool) -> None:
    """Print each comparison when it is done, or all of them as JSON."""
    from zsic_index.bench import timing

    if as_json:
        records = [comparison.as_dict() for comparison in comparisons]
        click.echo(
            json.dumps({"machine": timing.describe_machine(), "comparisons": records}, indent=2)
        )
        return
    for comparison in comparisons:
        click.echo(f"{comparison.work}, median of {len(comparison.timings[0].seconds)} rounds:")
        write_columns(
            ["", "time", f"faster than {comparison.timings[0].name}"],
            [
                [contender.name, _time(contender.median), f"{comparison.ratio(contender):.2f} x"]
                for contender in comparison.timings
            ],
            sys.stdout,
        )
    machine = timing.describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    click.echo(
        f"on {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}"
    )
    if machine["environment"]:
        click.echo("with " + ", ".join(f"{k}={v}" for k, v in machine["environment"].items()))


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1_000:.1f} ms"
