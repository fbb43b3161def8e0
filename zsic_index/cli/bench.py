"""The ``bench`` commands."""

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
    help="Turns of each contender that count; one before them does not.",
)
model_to_time_option = click.option(
    "-m",
    "--model",
    help="builtin:clip, a folder, or a Hub id.  [default: a random CLIP of ViT-B/32's size]",
)
dim_option = click.option(
    "--dim", type=click.IntRange(min=1), default=512, show_default=True, help="D."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def bench() -> None:
    """See how fast this machine is, beside its peers in the same run."""


def labels_option(default: int) -> Callable[[Command], Command]:
    """Return the option for the number of labels."""
    return click.option(
        "--labels",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="How many labels.",
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
    help="Images at a time. May be given several times.",
)
@click.option(
    "--half", is_flag=True, help="Scan half-precision embeddings, which take 2 * D bytes."
)
@rounds_option
@json_option
@verbose_option
def scan(
    labels: int, dim: int, batches: tuple[int, ...], half: bool, rounds: int, as_json: bool
) -> None:
    """Time exact scores of image embeddings against FAISS and bare products.

    A million labels of 512 dimensions take some two minutes to be imported, and 9 GB of memory;
    with --half, 1 GB.
    """
    from zsic_index.bench import half_scan, scan

    run = half_scan.run if half else scan.run
    _show(run(labels=labels, dim=dim, batches=batches, rounds=rounds), as_json=as_json)


@bench.command("query")
@labels_option(1_000)
@click.option(
    "--images", type=click.IntRange(min=1), default=32, show_default=True, help="How many images."
)
@model_to_time_option
@rounds_option
@json_option
@verbose_option
def query(labels: int, images: int, model: str | None, rounds: int, as_json: bool) -> None:
    """Time image files against an index, against transformers' pipeline and the vision tower."""
    from zsic_index.bench import query

    found = query.run(labels=labels, images=images, model=model, rounds=rounds)
    _show([found], as_json=as_json)


@bench.command("build")
@labels_option(10_000)
@model_to_time_option
@rounds_option
@json_option
@verbose_option
def build(labels: int, model: str | None, rounds: int, as_json: bool) -> None:
    """Time building an index against a loop over labels and the text tower alone."""
    from zsic_index.bench import build

    _show([build.run(labels=labels, model=model, rounds=rounds)], as_json=as_json)


@bench.command("roll-up")
@labels_option(35_000)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="How many images.",
)
@dim_option
@rounds_option
@json_option
@verbose_option
def roll_up(labels: int, images: int, dim: int, rounds: int, as_json: bool) -> None:
    """Time rolling image embeddings up to a rank against the scan alone."""
    from zsic_index.bench import roll_up

    found = roll_up.run(labels=labels, images=images, dim=dim, rounds=rounds)
    _show([found], as_json=as_json)


@bench.command("open")
@labels_option(100_000)
@dim_option
@rounds_option
@json_option
@verbose_option
def open_(labels: int, dim: int, rounds: int, as_json: bool) -> None:
    """Time the first answer of a new process, and building the same again."""
    from zsic_index.bench import open as opening

    _show([opening.run(labels=labels, dim=dim, rounds=rounds)], as_json=as_json)


@bench.command("drop-in")
@labels_option(1_000)
@model_to_time_option
@rounds_option
@json_option
@verbose_option
def drop_in(labels: int, model: str | None, rounds: int, as_json: bool) -> None:
    """Time the drop-in pipeline against transformers' own."""
    from zsic_index.bench import drop_in

    _show([drop_in.run(labels=labels, model=model, rounds=rounds)], as_json=as_json)


@bench.command("tag")
@labels_option(1_000)
@click.option(
    "--photos", type=click.IntRange(min=1), default=200, show_default=True, help="To be embedded."
)
@click.option(
    "--files", type=click.IntRange(min=1), default=10_000, show_default=True, help="Unchanged."
)
@click.option(
    "--embeddings",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="There already, under a new taxonomy.",
)
@model_to_time_option
@rounds_option
@json_option
@verbose_option
def tag(
    labels: int,
    photos: int,
    files: int,
    embeddings: int,
    model: str | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Time tagging photos against decoding and the vision tower alone, and when nothing is new."""
    from zsic_index.bench import tag

    found = tag.run(
        photos=photos,
        files=files,
        embeddings=embeddings,
        labels=labels,
        model=model,
        rounds=rounds,
    )
    _show(found, as_json=as_json)


def _show(comparisons: Iterable[Comparison], *, as_json: bool) -> None:
    """Print comparisons as they come, or all of them as JSON."""
    from zsic_index.bench import timing

    if as_json:
        found = [comparison.as_dict() for comparison in comparisons]
        click.echo(json.dumps({"machine": timing.machine(), "comparisons": found}, indent=2))
        return
    for comparison in comparisons:
        click.echo(f"{comparison.work}, median of {len(comparison.timings[0].seconds)} rounds:")
        write_columns(
            ["", "time", f"faster than {comparison.timings[0].name}"],
            [
                [timing.name, _time(timing.median), f"{comparison.ratio(timing):.2f} x"]
                for timing in comparison.timings
            ],
            sys.stdout,
        )
    on = timing.machine()
    versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    click.echo(f"on {on['cpu']}, {on['cores']} cores, Python {on['python']}, {versions}")
    if on["environment"]:
        click.echo("with " + ", ".join(f"{k}={v}" for k, v in on["environment"].items()))


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1_000:.1f} ms"
