"""Asking an index: ``query``."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zsic_index import outputs
from zsic_index.cli.options import common_options, device_option, name_option
from zsic_index.errors import ImageError

if TYPE_CHECKING:
    from zsic_index.images import ImageSource
    from zsic_index.label_index import LabelIndex


EXIT_SOME_REFUSED = 3


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@name_option
@click.option(
    "-k", "--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Labels shown."
)
@click.option(
    "-f",
    "--format",
    "format",
    type=click.Choice(outputs.FORMATS),
    default="table",
    show_default=True,
)
@click.option(
    "--label",
    "chosen",
    multiple=True,
    metavar="LABEL",
    help="Only among these labels of the index: the probabilities are over them. May be given "
    "several times.",
)
@click.option(
    "--labels",
    "chosen_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same from a file, of the kinds that build takes.",
)
@click.option(
    "--encode-missing",
    is_flag=True,
    help="Encode chosen labels that the index does not have, and keep them for the next time.",
)
@click.option("--over-index", is_flag=True, help="Also give each probability over the whole index.")
@click.option(
    "--decode",
    type=click.Choice(["exact", "scaled"]),
    default="exact",
    show_default=True,
    help="scaled decodes large JPEGs several times faster, for slightly other numbers.",
)
@click.option(
    "--keep-images",
    is_flag=True,
    help="Keep image embeddings in the store: the same files again cost no model.",
)
@device_option
@common_options
def query(
    images: tuple[str, ...],
    name: str,
    top_k: int,
    format: str,
    chosen: tuple[str, ...],
    chosen_file: Path | None,
    encode_missing: bool,
    over_index: bool,
    decode: Any,
    keep_images: bool,
    device: str,
    store: str | None,
) -> None:
    """Classify images against an index.

    IMAGE is a file, a folder (searched with its subfolders), a glob pattern, or - for one image
    on standard input. An image that cannot be used is named on standard error, the rest go on,
    and the exit code is 3.
    """
    from zsic_index import taxonomy
    from zsic_index.label_index import LabelIndex

    labels = [*chosen, *(taxonomy.read(chosen_file).labels if chosen_file else ())]
    counts = {"done": 0, "refused": 0}
    names: list[str] = []

    def sources() -> Iterator[ImageSource]:
        for image in images:
            found = False
            for shown, source in _expand(image):
                found = True
                names.append(shown)
                yield source
            if not found:
                counts["refused"] += 1
                click.echo(f"refused: {image}: no images there", err=True)

    def results(index: LabelIndex) -> Iterator[outputs.Classified]:
        for number, result in enumerate(
            index.stream(
                sources(),
                top_k=top_k,
                labels=labels or None,
                encode_missing=encode_missing,
                over_index=over_index,
            )
        ):
            shown = names[number]
            if isinstance(result, ImageError):
                counts["refused"] += 1
                click.echo(f"refused: {_named(shown, result)}", err=True)
            else:
                counts["done"] += 1
                yield shown, result

    with LabelIndex.open(
        name, store=store, device=device, decode=decode, keep_images=keep_images
    ) as index:
        outputs.write(results(index), format, sys.stdout)
    if counts["refused"]:
        total = sum(counts.values())
        click.echo(f"{total} inputs: {counts['done']} done, {counts['refused']} refused", err=True)
        sys.exit(EXIT_SOME_REFUSED)


def _expand(image: str) -> Iterator[tuple[str, ImageSource]]:
    """Yield (name, source) for what one IMAGE argument stands for."""
    from zsic_index.images import SUFFIXES

    path = Path(image)
    if image == "-":
        yield "-", sys.stdin.buffer.read()
    elif path.is_dir():
        for child in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in child.relative_to(path).parts)
            if child.suffix.lower() in SUFFIXES and child.is_file() and not hidden:
                yield str(child), child
    elif not path.exists() and glob.has_magic(image):
        # Path.glob takes no absolute patterns.
        for match in sorted(glob.glob(image, recursive=True)):  # noqa: PTH207
            if Path(match).is_file():
                yield match, match
    else:
        yield image, path


def _named(shown: str, error: ImageError) -> str:
    message = " ".join(str(error).split())
    return message if message.startswith(shown) else f"{shown}: {message}"
