"""Answering over HTTP: ``serve``."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import click

from zsic_index.cli.options import (
    common_options,
    device_option,
    exact_decode_option,
    tokens_in,
)

_MIB = 1 << 20

_SHORTEST_TOKEN = 16
"""Characters of a token; what is shorter can be guessed."""


@click.command(context_settings={"auto_envvar_prefix": "ZSIC_SERVE"})
@click.option(
    "-n",
    "--name",
    "names",
    multiple=True,
    envvar="ZSIC_SERVE_NAME",
    help="An index to serve; all of the store when none is named. May be given several times.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0: any free."
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tokens, one a line, any of which opens the service; sent as 'Authorization: Bearer'.",
)
@click.option(
    "--allow-anonymous",
    is_flag=True,
    help="Listen on other addresses than this machine's own without a token.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    envvar="ZSIC_SERVE_ALLOW_HOST",
    metavar="NAME",
    help="A name that requests may call the service by, besides localhost. May be given several "
    "times.  [default: any, where a token is needed or --allow-anonymous was given]",
)
@click.option(
    "--allow-urls",
    is_flag=True,
    help="Fetch images from public addresses that clients send; never from private ones.",
)
@click.option(
    "--root-path",
    default="",
    metavar="PATH",
    help="Where a proxy in front has it, such as /tags.",
)
@click.option(
    "--proxy",
    "proxies",
    envvar="ZSIC_SERVE_PROXY",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESSES",
    help="Whose X-Forwarded headers are believed, with commas between.",
)
@exact_decode_option
@click.option(
    "--max-requests",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Requests answered at a time; more are told to come again.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(min=1),
    help="Images of one pass through the vision tower.  [default: 32 on a GPU; on a CPU fewer, so "
    "that none waits long for the others]",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(0, 1_000),
    default=3.0,
    show_default=True,
    metavar="MS",
    help="How long a pass waits for images that are being decoded.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a request may take.",
)
@click.option(
    "--max-body",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="MIB",
    help="Largest body of a request.",
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Images of a request.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="MILLIONS",
    help="Largest image.",
)
@device_option
@common_options
def serve(
    names: tuple[str, ...],
    host: str,
    port: int,
    token_file: Path | None,
    allow_anonymous: bool,
    hosts: tuple[str, ...],
    allow_urls: bool,
    root_path: str,
    proxies: str,
    decode: Any,
    max_requests: int,
    max_batch: int | None,
    max_wait: float,
    deadline: float,
    max_body: int,
    max_images: int,
    max_pixels: int,
    device: str,
    store: str | None,
) -> None:
    """Answer over HTTP, with a page at /.

    Images of all requests go through the vision tower together. Indexes that are built again
    meanwhile are swapped in. Every option can be set as ZSIC_SERVE_..., such as ZSIC_SERVE_PORT.
    """
    try:
        from zsic_index.service import serving
        from zsic_index.service.app import create_app
        from zsic_index.service.settings import Settings
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"serve needs the extra serve ({error.name} is missing): "
            "pip install 'zsic-index[serve]'"
        ) from error

    tokens = _tokens(token_file)
    if not (tokens or allow_anonymous or _is_loopback(host)):
        raise click.UsageError(
            f"--host {host} can be reached from elsewhere: give --token-file, or "
            "--allow-anonymous if everyone who reaches it may ask"
        )
    is_open = bool(tokens or allow_anonymous)
    settings = Settings(
        store=store,
        names=names,
        device=device,
        decode=decode,
        max_pixels=max_pixels * 1_000_000,
        max_images=max_images,
        max_body=max_body * _MIB,
        max_requests=max_requests,
        max_batch=max_batch,
        max_wait=max_wait / 1_000,
        deadline=deadline,
        allow_urls=allow_urls,
        tokens=tokens,
        hosts=() if is_open and not hosts else (*_LOCAL, host, *hosts),
    )
    app = create_app(settings)
    listening = serving.listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}{root_path}"
    serving.run(
        app,
        listening,
        drain=deadline,
        root_path=root_path,
        proxies=proxies,
        ready=lambda: click.echo(f"serving at {address}/ (ends with Ctrl+C)", err=True),
    )


_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def _tokens(path: Path | None) -> tuple[str, ...]:
    """Return the tokens of a file, which are not too short."""
    if path is None:
        return ()
    found = tokens_in(path)
    short = [token for token in found if len(token) < _SHORTEST_TOKEN]
    if short or not found:
        raise click.BadParameter(
            f"{path}: {'a token is' if short else 'no token in it, or one'} shorter than "
            f"{_SHORTEST_TOKEN} characters: make one with 'openssl rand -hex 32'",
            param_hint="--token-file",
        )
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
