"""The ``bench`` commands: options, and printing of comparisons."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from zsic_index.cli.options import Command, runtime_option, verbose_option
from zsic_index.formats.text import write_columns

if TYPE_CHECKING:
    from zsic_index.bench.cold import ColdStart
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


def batches_option(*defaults: int) -> Callable[[Command], Command]:
    """Return the option --batch with defaults."""
    return click.option(
        "--batch",
        "batches",
        type=click.IntRange(min=1),
        multiple=True,
        default=defaults,
        show_default=True,
        metavar="B",
        help="Number of images per batch. Repeatable.",
    )


@bench.command("scan")
@labels_option(100_000)
@dim_option
@batches_option(1, 8, 64, 256)
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
@runtime_option
@rounds_option
@json_option
@verbose_option
def time_query(
    labels: int, images: int, model: str | None, runtime: Any, rounds: int, as_json: bool
) -> None:
    """Time query against transformers' pipeline and torch's vision tower."""
    from zsic_index.bench import query

    comparison = query.run(
        labels=labels, images=images, model=model, runtime=runtime, rounds=rounds
    )
    _print_comparisons([comparison], as_json=as_json)


@bench.command("tower")
@batches_option(1, 8, 32)
@model_to_time_option
@click.option(
    "--size",
    type=click.Choice(["B/32", "L/14"]),
    default="B/32",
    show_default=True,
    help="Size of the random model, a ViT.",
)
@click.option(
    "--no-compile",
    is_flag=True,
    help="Leave out torch.compile, which compiles for up to a minute per batch size.",
)
@rounds_option
@json_option
@verbose_option
def time_tower(
    batches: tuple[int, ...],
    model: str | None,
    size: str,
    no_compile: bool,
    rounds: int,
    as_json: bool,
) -> None:
    """Time one vision tower by torch, ONNX Runtime and OpenVINO.

    Times are per image, torch.compile's as well. OpenVINO takes part if it is installed. Embeddings
    are compared first.
    """
    if model is not None and size != "B/32":
        raise click.UsageError("--size is that of the random model: leave out --model or --size")
    from zsic_index.bench import tower

    comparisons = tower.run(
        batches=batches, model=model, size=size, compiled=not no_compile, rounds=rounds
    )
    _print_comparisons(comparisons, as_json=as_json)


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


@bench.command("cold")
@labels_option(1_000)
@model_to_time_option
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(["torch", "onnx", "onnx-int8"]),
    multiple=True,
    default=("torch", "onnx", "onnx-int8"),
    show_default=True,
    help="Library that runs the vision tower. Repeatable.",
)
@rounds_option
@json_option
@verbose_option
def measure_cold(labels: int, model: str | None, runtimes: Any, rounds: int, as_json: bool) -> None:
    """Measure CPU time and memory of query in a new process.

    One image, with each runtime, beside a bare program that loads the same ONNX file and embeds
    the image; then the memory of a process that has classified 32 images.
    """
    from zsic_index.bench import cold, timing

    start = cold.run(labels=labels, model=model, runtimes=runtimes, rounds=rounds)
    if as_json:
        click.echo(json.dumps({"machine": timing.describe_machine()} | start.as_dict(), indent=2))
    else:
        _print_cold_start(start)


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
@runtime_option
@rounds_option
@json_option
@verbose_option
def time_tag(
    labels: int,
    photos: int,
    files: int,
    embeddings: int,
    model: str | None,
    runtime: Any,
    rounds: int,
    as_json: bool,
) -> None:
    """Time tag on new, unchanged and embedded photos.

    New photos are compared with decoding and torch's vision tower alone, unchanged files with a
    bare directory walk.
    """
    from zsic_index.bench import tag

    comparisons = tag.run(
        photos=photos,
        files=files,
        embeddings=embeddings,
        labels=labels,
        model=model,
        runtime=runtime,
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
    _print_machine()


def _print_cold_start(start: ColdStart) -> None:
    *_, bound = start.processes
    click.echo(f"{start.work}, median of {len(bound.rounds)} rounds:")
    write_columns(
        [
            "",
            "CPU time",
            "beyond the last",
            "by the clock",
            "peak memory",
            "memory after 32 images",
        ],
        [
            [
                costs.name,
                _time(costs.cpu_seconds),
                "" if costs is bound else _time(costs.cpu_beyond(bound)),
                _time(costs.wall_seconds),
                _megabytes(costs.peak_bytes),
                "" if costs.resident_bytes is None else _megabytes(costs.resident_bytes),
            ]
            for costs in start.processes
        ],
        sys.stdout,
    )
    _print_machine()


def _print_machine() -> None:
    from zsic_index.bench import timing

    machine = timing.describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    click.echo(
        f"on {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}"
    )
    if machine["environment"]:
        click.echo("with " + ", ".join(f"{k}={v}" for k, v in machine["environment"].items()))


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1_000:.1f} ms"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
