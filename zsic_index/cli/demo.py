"""The ``demo`` command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from zsic_index.cli.options import common_options
from zsic_index.cli.progress import Progress
from zsic_index.formats.predictions import ImagePredictions, write_predictions


@click.command("demo")
@click.option(
    "-m",
    "--model",
    type=click.Choice(["builtin:clip", "builtin:siglip"]),
    default="builtin:clip",
    show_default=True,
    help="Built-in model.",
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("zsic-index-demo.html"),
    show_default=True,
    help="HTML file for the page with the pictures.",
)
@common_options
def demo_command(model: str, page: Path, store: str | None) -> None:
    """Classify 40 sample pictures against 1,623 emoji names.

    The model, the labels and the pictures come with the package; nothing is downloaded. The
    pictures and their probabilities are written to an HTML page.
    """
    from zsic_index import demo

    with Progress(show=True) as progress:
        result = demo.run(model, store=store, progress=progress)
    best = (
        ImagePredictions(picture.image.name, picture.predictions[:1]) for picture in result.pictures
    )
    write_predictions(best, "table", sys.stdout)
    page.write_text(demo.render_page(result), encoding="utf-8")
    click.echo(demo.summary(result))
    click.echo(f"Page with the pictures and their probabilities: {page}")
    click.echo(f"\n{demo.NEXT_STEPS}")
