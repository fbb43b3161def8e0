"""The ``review`` command."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Any

import click

from zsic_index.cli.options import absolute, common_options, decode_option, name_option
from zsic_index.cli.progress import Progress


@click.command()
@name_option
@click.option(
    "--under", metavar="DIR", type=click.Path(path_type=Path), help="Only in and below this folder."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Port on this machine; 0 takes a free one.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@decode_option
@common_options
def review(
    name: str, under: Path | None, port: int, no_browser: bool, decode: Any, store: str | None
) -> None:
    """Look through the photos that tag has looked at, one label at a time, in the browser.

    Photos can be accepted and rejected for a label, and its threshold can be moved, or fitted to
    them. That is kept in the store; tags and sidecars change when it is applied. Only this machine
    is served, and only the browser that opens the address first. Ctrl-C ends it.
    """
    from zsic_index.label_index import LabelIndex
    from zsic_index.library.review.server import ReviewServer
    from zsic_index.library.review.session import Review

    with LabelIndex.open(name, store=store, decode=decode, keep_images=True) as index:
        with Progress(show=True, what="photos") as progress:
            session = Review(index, None if under is None else absolute(under), progress)
        try:
            with ReviewServer(session, port) as server:
                click.echo(
                    f"{len(session.photos):,} photos, {len(session.labels):,} labels: {server.url}"
                )
                click.echo("Ctrl-C ends the review; what was decided is kept")
                if not no_browser:
                    # A browser of the terminal would take it over until it is left.
                    threading.Thread(
                        target=webbrowser.open, args=(server.url,), daemon=True
                    ).start()
                try:
                    server.serve_forever()
                except KeyboardInterrupt:
                    click.echo("")
        finally:
            session.close()
