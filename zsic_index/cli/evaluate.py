"""Images to fit and to measure with: ``calibrate`` and ``eval``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zsic_index.cli.options import common_options, device_option, name_option
from zsic_index.formats.text import percent, short_percent
from zsic_index.records import HUB_ALPHA, HUB_K

if TYPE_CHECKING:
    from zsic_index.calibration import Calibration
    from zsic_index.embedding_arrays import Float32
    from zsic_index.evaluation.known import Known
    from zsic_index.label_index import LabelIndex


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path), required=False)
@name_option
@click.option(
    "--hubs",
    "references",
    type=click.Path(exists=True, path_type=Path),
    metavar="IMAGES",
    help="First fit a bias against labels that are near to every image, to images without labels: "
    "a folder, a .txt with a path on each line, or a table with the column path.",
)
@click.option(
    "--k",
    type=click.IntRange(min=1),
    help="With --hubs: how many of the images nearest to a label are averaged.  "
    f"[default: {HUB_K}]",
)
@click.option(
    "--alpha",
    type=click.FloatRange(min=0),
    help="With --hubs: the part of their mean similarity that is taken from the label's.  "
    f"[default: {HUB_ALPHA}]",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also fit thresholds, per label where there is enough, that keep this precision.",
)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also fit prediction sets that hold the right label this often.",
)
@device_option
@common_options
def calibrate(
    source: Path | None,
    name: str,
    references: Path | None,
    k: int | None,
    alpha: float | None,
    precision: float | None,
    coverage: float | None,
    device: str,
    store: str | None,
) -> None:
    """Fit an index's probabilities to images, and keep what was fitted in the place of the last.

    SOURCE is a folder with a folder of images for each label, or a .csv or .tsv file with the
    columns path and label. With --hubs it can be left out. The model's own probabilities stay the
    default: query and eval take the fitted ones with --calibrated.
    """
    from zsic_index.evaluation import fitting
    from zsic_index.label_index import LabelIndex

    if source is None and references is None:
        raise click.UsageError("give labelled images as SOURCE, or others with --hubs, or both")
    if source is None and (precision is not None or coverage is not None):
        raise click.UsageError("--precision and --coverage need labelled images: give SOURCE")
    if references is None and (k is not None or alpha is not None):
        raise click.UsageError("--k and --alpha are for --hubs: give it images")
    with LabelIndex.open(name, store=store, device=device, keep_images=True) as index:
        hubs = None
        if references is not None:
            hubs = fitting.fit_hubs(
                index,
                _references(index, references),
                k=HUB_K if k is None else k,
                alpha=HUB_ALPHA if alpha is None else alpha,
            )
        if source is None:
            assert hubs is not None, "there is one or the other"
            found = hubs
        else:
            found = fitting.calibrate(
                index, _known(index, source), hubs=hubs, precision=precision, coverage=coverage
            )
        index.save_calibration(found)
    _print_fitted(name, found)


@click.command("eval")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@name_option
@click.option("--calibrated", is_flag=True, help="Compare with the probabilities fitted before.")
@click.option(
    "--templates",
    multiple=True,
    metavar="TEMPLATE",
    help="Also measure this template, set or file on the same images. May be given several times.",
)
@click.option(
    "-f",
    "--format",
    "format",
    type=click.Choice(["table", "json", "html"]),
    default="table",
    show_default=True,
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file."
)
@device_option
@common_options
def evaluate(
    source: Path,
    name: str,
    calibrated: bool,
    templates: tuple[str, ...],
    format: str,
    output: Path | None,
    device: str,
    store: str | None,
) -> None:
    """Measure an index on labelled images.

    SOURCE is what calibrate takes, but other images than those. Prints accuracy (also by rank),
    calibration error, and what is taken for what; --format html is a page with the reliability
    diagram and the images that are most surely wrong.
    """
    from zsic_index.evaluation import measuring, report
    from zsic_index.label_index import LabelIndex

    with ExitStack() as stack:
        index = stack.enter_context(
            LabelIndex.open(name, store=store, device=device, keep_images=True)
        )
        fitted = index.load_calibration() if calibrated else None
        known = _known(index, source)
        others = {entry: stack.enter_context(index.with_templates(entry)) for entry in templates}
        found = measuring.evaluate(
            index, known, source=str(source), calibration=fitted, others=others
        )
    if output is None:
        report.write(found, format, sys.stdout)
    else:
        with output.open("w", encoding="utf-8") as file:
            report.write(found, format, file)
        click.echo(f"wrote {output}")


def _print_fitted(name: str, found: Calibration) -> None:
    if (hubs := found.hubs) is not None:
        click.echo(
            f"{name}: label bias from {hubs.references:,} images without labels "
            f"(k {hubs.k}, alpha {hubs.alpha:g}): {hubs.bias.min():+.4f} to {hubs.bias.max():+.4f}"
        )
    if (fit := found.fit) is not None:
        click.echo(f"{name}: fitted on {found.fitted_on.images:,} images")
        click.echo(f"logit scale {fit.scale_before:.3f} -> {fit.scale:.3f}")
        if found.activation == "sigmoid":
            click.echo(f"logit bias {fit.bias_before:.3f} -> {fit.bias:.3f}")
        click.echo(
            f"calibration error {percent(fit.ece_before)} -> {percent(fit.ece)}, on the same images"
        )
    if found.thresholds is not None:
        click.echo(
            f"thresholds for {short_percent(found.thresholds.precision)} precision: "
            f"{found.thresholds.overall:.4g} overall, {len(found.thresholds.label_ids):,} own"
        )
    if found.conformal is not None:
        click.echo(
            f"sets of {short_percent(found.conformal.coverage)} coverage: all labels from a "
            f"probability of {found.conformal.limit:.4g} on"
        )


def _references(index: LabelIndex, source: Path) -> Float32:
    from zsic_index.evaluation import read_unlabelled
    from zsic_index.evaluation.known import embed_references

    found = embed_references(index, read_unlabelled(source))
    for reason in found.refused:
        click.echo(f"refused: {reason}", err=True)
    return found.embeddings


def _known(index: LabelIndex, source: Path) -> Known:
    from zsic_index.evaluation import read_labelled
    from zsic_index.evaluation.known import embed

    labelled = read_labelled(source)
    known = embed(index, labelled)
    for path in labelled.missing[:3]:
        click.echo(f"missing: {path}", err=True)
    for reason in known.refused:
        click.echo(f"refused: {reason}", err=True)
    if known.unknown:
        shown = ", ".join(map(repr, known.unknown[:3]))
        more = ", ..." if len(known.unknown) > 3 else ""
        click.echo(
            f"warning: {len(known.unknown)} labels are not in the index, or are the name of "
            f"several: {shown}{more}",
            err=True,
        )
    return known
