"""The ``bench`` commands."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from zsic_index import outputs
from zsic_index.cli.options import verbose_option

if TYPE_CHECKING:
    from zsic_index.bench.timing import Comparison


rounds_option = click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Turns of each contender that count; one before them does not.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def bench() -> None:
    """See how fast this machine is, beside its peers in the same run."""


@bench.command("drop-in")
@click.option(
    "--labels",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="How many candidate labels.",
)
@click.option(
    "-m",
    "--model",
    help="builtin:clip, a folder, or a Hub id.  [default: a random CLIP of ViT-B/32's size]",
)
@rounds_option
@json_option
@verbose_option
def drop_in(labels: int, model: str | None, rounds: int, as_json: bool) -> None:
    """Time the drop-in pipeline against transformers' own."""
    from zsic_index.bench import drop_in

    _show([drop_in.run(labels=labels, model=model, rounds=rounds)], as_json=as_json)


def _show(comparisons: list[Comparison], *, as_json: bool) -> None:
    from zsic_index.bench import timing

    if as_json:
        found = [comparison.as_dict() for comparison in comparisons]
        click.echo(json.dumps({"machine": timing.machine(), "comparisons": found}, indent=2))
        return
    for comparison in comparisons:
        click.echo(f"{comparison.work}, median of {len(comparison.timings[0].seconds)} rounds:")
        outputs.write_columns(
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
