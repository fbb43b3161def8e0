"""The ``demo`` command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from zsic_index.cli.options import common_options
from zsic_index.cli.progress import Progress
from zsic_index.formats.predictions import Classified, write


@click.command()
@click.option(
    "-m",
    "--model",
    type=click.Choice(["builtin:clip", "builtin:siglip"]),
    default="builtin:clip",
    show_default=True,
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("zsic-index-demo.html"),
    show_default=True,
    help="Where to write the page with the pictures.",
)
@common_options
def demo(model: str, page: Path, store: str | None) -> None:
    """Build an index of 1,623 emoji names and classify 40 sample pictures, offline."""
    from zsic_index import demo

    with Progress(show=True) as progress:
        result = demo.run(model, store=store, progress=progress)
    best = (Classified(picture.image.name, picture.predictions[:1]) for picture in result.pictures)
    write(best, "table", sys.stdout)
    page.write_text(demo.render_page(result), encoding="utf-8")
    click.echo(demo.summary(result))
    click.echo(f"Page with the pictures and their bars: {page}")
    click.echo(f"\n{demo.NEXT_STEPS}")
