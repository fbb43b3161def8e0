"""The ``serve`` command."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import click

from zsic_index.cli.help import GroupedCommand, option_group
from zsic_index.cli.options import (
    common_options,
    device_option,
    exact_decode_option,
    read_tokens,
    runtime_option,
)

_MIB = 1 << 20

_SHORTEST_TOKEN = 16
"""Smallest number of characters of a token; shorter ones can be guessed."""

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#\s]+", re.IGNORECASE)


def _check_origins(
    _context: click.Context, _option: click.Parameter, origins: tuple[str, ...]
) -> tuple[str, ...]:
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise click.BadParameter(
                f"{origin!r} is not an origin: give scheme, host and port only, such as "
                "https://photos.example"
            )
    return origins


@click.command(cls=GroupedCommand, context_settings={"auto_envvar_prefix": "ZSIC_SERVE"})
@option_group(
    "Indexes and model",
    click.option(
        "-n",
        "--name",
        "names",
        multiple=True,
        envvar="ZSIC_SERVE_NAME",
        metavar="NAME",
        help="Index to serve. Repeatable.  [default: all of the store]",
    ),
    exact_decode_option,
    device_option,
    runtime_option,
)
@option_group(
    "Address",
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=8000,
        show_default=True,
        metavar="PORT",
        help="Port to listen on; 0 for any free one.",
    ),
    click.option(
        "--root-path",
        default="",
        metavar="PATH",
        help="Path under which a proxy exposes the service, such as /tags.",
    ),
    click.option(
        "--proxy",
        "proxies",
        envvar="ZSIC_SERVE_PROXY",
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESSES",
        help="Addresses of proxies whose X-Forwarded headers are trusted, separated by commas.",
    ),
)
@option_group(
    "Access",
    click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with tokens, one per line. Clients send one of them as 'Authorization: Bearer'.",
    ),
    click.option(
        "--allow-anonymous",
        is_flag=True,
        help="Listen on addresses that other machines can reach, without tokens.",
    ),
    click.option(
        "--allow-host",
        "hosts",
        multiple=True,
        envvar="ZSIC_SERVE_ALLOW_HOST",
        metavar="NAME",
        help="Host name that requests may use, besides localhost. Repeatable.  [default: any, with "
        "--token-file or --allow-anonymous]",
    ),
    click.option(
        "--allow-origin",
        "origins",
        multiple=True,
        envvar="ZSIC_SERVE_ALLOW_ORIGIN",
        callback=_check_origins,
        metavar="ORIGIN",
        help="Origin, such as https://photos.example, whose pages may use the service, besides its "
        "own; '*' for every page that anyone here opens. Repeatable.",
    ),
    click.option(
        "--allow-urls",
        is_flag=True,
        help="Fetch images from URLs in requests; private addresses are always refused.",
    ),
)
@option_group(
    "Batches",
    click.option(
        "--max-batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Largest number of images per pass through the vision tower.  [default: 32 on a GPU; "
        "fewer on a CPU, for shorter waits]",
    ),
    click.option(
        "--max-wait",
        type=click.FloatRange(0, 1_000),
        default=3.0,
        show_default=True,
        metavar="MS",
        help="Longest wait of a pass for images that are still being decoded.",
    ),
)
@option_group(
    "Limits",
    click.option(
        "--max-requests",
        type=click.IntRange(min=1),
        default=128,
        show_default=True,
        metavar="N",
        help="Largest number of requests at a time; more get status 429.",
    ),
    click.option(
        "--deadline",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="Longest duration of a request; status 504 after it.",
    ),
    click.option(
        "--max-body",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        metavar="MIB",
        help="Largest body of a request.",
    ),
    click.option(
        "--max-images",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        metavar="N",
        help="Largest number of images per request.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        default=50,
        show_default=True,
        metavar="MILLIONS",
        help="Largest width x height of an image.",
    ),
    click.option(
        "--templates",
        "template_sets",
        type=click.IntRange(min=0, max=1_000),
        envvar="ZSIC_SERVE_TEMPLATES",
        default=0,
        show_default="refused",
        metavar="N",
        help="Accept templates in requests, and keep at most N sets of them per index in memory; "
        "the page then compares templates.",
    ),
)
@common_options
def serve(
    names: tuple[str, ...],
    host: str,
    port: int,
    token_file: Path | None,
    allow_anonymous: bool,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
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
    template_sets: int,
    device: str,
    runtime: Any,
    store: str | None,
) -> None:
    """Serve indexes over HTTP, with a web page at /.

    Images of concurrent requests share passes through the vision tower. An index that is rebuilt
    or calibrated is reloaded within a second. Every option can be set by an environment variable
    ZSIC_SERVE_..., such as ZSIC_SERVE_PORT.
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

    tokens = _checked_tokens(token_file)
    if not (tokens or allow_anonymous or _is_loopback(host)):
        raise click.UsageError(
            f"--host {host} can be reached from other machines: give --token-file, or "
            "--allow-anonymous to serve everyone who can reach it"
        )
    is_open = bool(tokens or allow_anonymous)
    settings = Settings(
        store=store,
        names=names,
        device=device,
        runtime=runtime,
        decode=decode,
        max_pixels=max_pixels * 1_000_000,
        max_images=max_images,
        max_body=max_body * _MIB,
        max_requests=max_requests,
        max_batch=max_batch,
        max_wait=max_wait / 1_000,
        max_template_sets=template_sets,
        deadline=deadline,
        allow_urls=allow_urls,
        tokens=tokens,
        hosts=() if is_open and not hosts else (*_LOCAL_HOSTS, host, *hosts),
        origins=origins,
    )
    app = create_app(settings)
    listening = serving.listen(host, port)
    url_host = f"[{host}]" if ":" in host else host
    address = f"http://{url_host}:{listening.getsockname()[1]}{root_path}"
    serving.run(
        app,
        listening,
        settings,
        drain=deadline,
        root_path=root_path,
        proxies=proxies,
        ready=lambda: click.echo(f"serving at {address}/ (ends with Ctrl+C)", err=True),
    )


def _checked_tokens(path: Path | None) -> tuple[str, ...]:
    """Return the tokens of a file; refuse files without tokens or with short ones."""
    if path is None:
        return ()
    tokens = read_tokens(path)
    if not tokens or any(len(token) < _SHORTEST_TOKEN for token in tokens):
        problem = "a token is" if tokens else "no token, or one"
        raise click.BadParameter(
            f"{path}: {problem} shorter than {_SHORTEST_TOKEN} characters: make one with "
            "'openssl rand -hex 32'",
            param_hint="--token-file",
        )
    return tokens


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
