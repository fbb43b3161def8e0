"""The commands ``onnx write`` and ``onnx export``."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from zsic_index.cli.options import common_options, quiet_option
from zsic_index.cli.progress import Progress
from zsic_index.records import Precision

if TYPE_CHECKING:
    from zsic_index.encoders.onnx.files import TowerFiles


precision_option = click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="float32",
    show_default=True,
    help="Number format of the weights. int8 is smaller and faster, and its probabilities differ.",
)


@click.group()
def onnx() -> None:
    """Write vision towers for ONNX Runtime, and export whole indexes.

    They need the extra: pip install 'zsic-index[onnx]'.
    """


@onnx.command()
@click.argument("name")
@precision_option
@click.option(
    "--images",
    "folders",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    metavar="PATH",
    help="Image or folder of images that int8 is measured with against float32; at least 500 "
    "images. Repeatable.",
)
@click.option(
    "--force", is_flag=True, help="Write int8 even if it changes the first label too often."
)
@quiet_option("Print neither progress nor a summary.")
@common_options
def write(
    name: str,
    precision: Any,
    folders: tuple[Path, ...],
    force: bool,
    quiet: bool,
    store: str | None,
) -> None:
    """Write the vision tower of index NAME as an ONNX file.

    The file is kept beside the index's own, for all indexes with the same model. float32 is
    compared with torch on 200 generated images; build does the same if the extra is installed.
    """
    if precision == "float32" and (folders or force):
        raise click.UsageError("--images and --force go with --precision int8")
    from zsic_index.images.opening import list_image_files
    from zsic_index.label_index import LabelIndex
    from zsic_index.label_index.towers import ensure_tower, write_int8_tower

    with LabelIndex.open(name, store=store, device="cpu", runtime="torch") as index:
        with Progress(show=not quiet, what="images compared") as progress:
            tower = ensure_tower(
                index, index.encoder.checkpoint, index.encoder.source, progress=progress
            )
        if precision == "int8":
            paths = [list_image_files(path) if path.is_dir() else [path] for path in folders]
            with Progress(show=not quiet, what="images compared") as progress:
                tower = write_int8_tower(
                    index,
                    tower,
                    list(chain.from_iterable(paths)),
                    force=force,
                    progress=progress,
                )
    if not quiet:
        click.echo(f"{tower.folder}: {describe_tower(tower)}")


@onnx.command()
@click.argument("name")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@precision_option
@common_options
def export(name: str, folder: Path, precision: Any, store: str | None) -> None:
    """Export index NAME to DIR, for programs that do not have zsic-index.

    DIR gets the vision tower, the label embeddings, an index.json with labels, image settings and
    the numbers that turn similarities into probabilities, and classify.py, a short program that
    uses them.
    """
    from zsic_index.encoders.runtime import require_tower
    from zsic_index.label_index import LabelIndex
    from zsic_index.label_index.exporting import export_index

    with LabelIndex.open(name, store=store, device="cpu") as index:
        tower = require_tower(index.store.location.files, index.info, precision)
        paths = export_index(index, tower, folder)
    for path in paths:
        click.echo(f"{path}: {path.stat().st_size:,} bytes")


def describe_tower(tower: TowerFiles) -> str:
    """Return what was measured of a tower, in one line."""
    from zsic_index.encoders.onnx.files import MAX_CHANGE

    record = tower.record
    if record.precision == "float32":
        kept = "count as" if record.is_exact else "are kept apart from"
        return (
            f"float32, probabilities within {record.change:.1e} of torch's on {record.images} "
            f"images (limit {MAX_CHANGE:.0e}): its embeddings {kept} torch's"
        )
    agreement = record.agreement
    if agreement is None:
        return "int8, unmeasured: no images were given"
    measured = "" if record.is_measured else "unmeasured, too few images: "
    return (
        f"int8, {measured}first label as in float32 on {agreement.top_1:.1%} of "
        f"{agreement.images:,} images ({agreement.low:.1%} to {agreement.high:.1%}), "
        f"cosine {agreement.mean_cosine:.4f} on average, {agreement.min_cosine:.4f} at least"
    )
