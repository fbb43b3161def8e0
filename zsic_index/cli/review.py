"""The ``review`` command."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Any

import click

from zsic_index.cli.options import (
    absolute_path,
    common_options,
    decode_option,
    name_option,
    under_option,
)
from zsic_index.cli.progress import Progress


@click.command()
@name_option
@under_option
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    metavar="PORT",
    help="Port on this machine; 0 for any free one.",
)
@click.option("--no-browser", is_flag=True, help="Print the address without opening it.")
@decode_option
@common_options
def review(
    name: str, under: Path | None, port: int, no_browser: bool, decode: Any, store: str | None
) -> None:
    """Review tagged photos in the browser, label by label.

    Photos can be accepted or rejected for a label, and its threshold can be moved or fitted to
    these decisions. They are kept in the store; tags and sidecars change when they are applied.
    The page is available on this machine only, to the first browser that opens the address.
    Ctrl-C ends the review.
    """
    from zsic_index.label_index import LabelIndex
    from zsic_index.library.review.server import ReviewServer
    from zsic_index.library.review.session import Review

    with LabelIndex.open(name, store=store, decode=decode, keep_images=True) as index:
        with Progress(show=True, what="photos") as progress:
            session = Review(index, None if under is None else absolute_path(under), progress)
        try:
            with ReviewServer(session, port) as server:
                click.echo(
                    f"{len(session.photos):,} photos, {len(session.labels):,} labels: {server.url}"
                )
                click.echo("Ctrl-C ends the review; decisions are kept")
                if not no_browser:
                    # A text browser runs in this terminal and would block the server.
                    threading.Thread(
                        target=webbrowser.open, args=(server.url,), daemon=True
                    ).start()
                try:
                    server.serve_forever()
                except KeyboardInterrupt:
                    click.echo("")
        finally:
            session.close()
