"""Commands that fit and measure an index with images: ``calibrate`` and ``eval``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zsic_index.cli.help import GroupedCommand, option_group
from zsic_index.cli.options import common_options, device_option, name_option, runtime_option
from zsic_index.formats.text import percent, short_percent
from zsic_index.records import HUB_ALPHA, HUB_K

if TYPE_CHECKING:
    from zsic_index.calibration import Calibration
    from zsic_index.embedding_arrays import Float32
    from zsic_index.evaluation import LabelledEmbeddings
    from zsic_index.label_index import LabelIndex

_EXAMPLES = 3
"""Files or labels that a message names."""


@click.command(cls=GroupedCommand)
@click.argument("source", type=click.Path(exists=True, path_type=Path), required=False)
@option_group("Index", name_option, device_option, runtime_option)
@option_group(
    "Decisions, fitted to SOURCE",
    click.option(
        "--precision",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="P",
        help="Precision that thresholds are fitted to keep; a label with enough images gets a "
        "threshold of its own.",
    ),
    click.option(
        "--coverage",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="P",
        help="Share of images whose right label the fitted prediction sets contain.",
    ),
)
@option_group(
    "Hubs: labels that are close to almost every image",
    click.option(
        "--hubs",
        "references",
        type=click.Path(exists=True, path_type=Path),
        metavar="IMAGES",
        help="Images without labels to fit a bias per label to, before all else: a folder, a .txt "
        "file with one path per line, or a table with the column path.",
    ),
    click.option(
        "--k",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Number of images closest to a label that are averaged.  [default: {HUB_K}]",
    ),
    click.option(
        "--alpha",
        type=click.FloatRange(min=0),
        metavar="SHARE",
        help="Share of their mean similarity that is subtracted from the label's similarity.  "
        f"[default: {HUB_ALPHA}]",
    ),
)
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
    runtime: Any,
    store: str | None,
) -> None:
    """Fit the probabilities of an index to images.

    SOURCE is a folder with one folder of images per label, or a .csv or .tsv file with the columns
    path and label. It is optional with --hubs. The new calibration replaces the last one. The
    model's own probabilities remain the default: query and eval use the fitted ones with
    --calibrated.
    """
    from zsic_index.evaluation import fitting
    from zsic_index.label_index import LabelIndex

    if source is None and references is None:
        raise click.UsageError("give labelled images as SOURCE, or other images with --hubs")
    if source is None and (precision is not None or coverage is not None):
        raise click.UsageError("--precision and --coverage need labelled images: give SOURCE")
    if references is None and (k is not None or alpha is not None):
        raise click.UsageError("--k and --alpha are for --hubs: give it images")
    with LabelIndex.open(
        name, store=store, device=device, runtime=runtime, keep_images=True
    ) as index:
        hubs = None
        if references is not None:
            hubs = fitting.fit_hubs(
                index,
                _embed_references(index, references),
                k=HUB_K if k is None else k,
                alpha=HUB_ALPHA if alpha is None else alpha,
            )
        if source is None:
            assert hubs is not None, "one of the two is given"
            calibration = hubs
        else:
            calibration = fitting.calibrate(
                index,
                _embed_labelled(index, source),
                hubs=hubs,
                precision=precision,
                coverage=coverage,
            )
        index.save_calibration(calibration)
    _print_calibration(name, calibration)


@click.command("eval")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@name_option
@click.option("--calibrated", is_flag=True, help="Also measure the fitted probabilities.")
@click.option(
    "--templates",
    multiple=True,
    metavar="TEMPLATE",
    help="Template, template set or file to measure on the same images too. Repeatable.",
)
@click.option(
    "-f",
    "--format",
    "format",
    type=click.Choice(["table", "json", "html"]),
    default="table",
    show_default=True,
    help="Format of the report.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the report.  [default: standard output]",
)
@device_option
@runtime_option
@common_options
def evaluate(
    source: Path,
    name: str,
    calibrated: bool,
    templates: tuple[str, ...],
    format: str,
    output: Path | None,
    device: str,
    runtime: Any,
    store: str | None,
) -> None:
    """Measure an index on labelled images.

    SOURCE has the form that calibrate reads; use other images than those given to calibrate. The
    report has accuracy (also by rank), calibration error and confusions; --format html adds a
    reliability diagram and the wrong images of highest probability.
    """
    from zsic_index.evaluation import measuring, report
    from zsic_index.label_index import LabelIndex

    with ExitStack() as stack:
        index = stack.enter_context(
            LabelIndex.open(name, store=store, device=device, runtime=runtime, keep_images=True)
        )
        calibration = index.load_calibration() if calibrated else None
        labelled = _embed_labelled(index, source)
        others = {
            template: stack.enter_context(index.with_templates(template)) for template in templates
        }
        evaluation = measuring.evaluate(
            index, labelled, source=str(source), calibration=calibration, others=others
        )
    if output is None:
        report.write(evaluation, format, sys.stdout)
    else:
        with output.open("w", encoding="utf-8") as file:
            report.write(evaluation, format, file)
        click.echo(f"wrote {output}")


def _print_calibration(name: str, calibration: Calibration) -> None:
    if (hubs := calibration.hubs) is not None:
        click.echo(
            f"{name}: label bias from {hubs.references:,} images without labels "
            f"(k {hubs.k}, alpha {hubs.alpha:g}): {hubs.bias.min():+.4f} to {hubs.bias.max():+.4f}"
        )
    if (fit := calibration.fit) is not None:
        click.echo(f"{name}: fitted on {calibration.fitted_on.images:,} images")
        click.echo(f"logit scale {fit.scale_before:.3f} -> {fit.scale:.3f}")
        if calibration.activation == "sigmoid":
            click.echo(f"logit bias {fit.bias_before:.3f} -> {fit.bias:.3f}")
        click.echo(
            f"calibration error {percent(fit.ece_before)} -> {percent(fit.ece)}, on the same images"
        )
    if (thresholds := calibration.thresholds) is not None:
        click.echo(
            f"thresholds for {short_percent(thresholds.precision)} precision: "
            f"{thresholds.overall:.4g} overall, {len(thresholds.label_ids):,} labels with their own"
        )
    if (sets := calibration.conformal) is not None:
        click.echo(
            f"sets of {short_percent(sets.coverage)} coverage: all labels with a probability of at "
            f"least {sets.limit:.4g}"
        )


def _embed_references(index: LabelIndex, source: Path) -> Float32:
    """Return the (R, D) embeddings of images without labels; print those refused."""
    from zsic_index.evaluation import embed_references, read_unlabelled

    references = embed_references(index, read_unlabelled(source))
    for reason in references.refused:
        click.echo(f"refused: {reason}", err=True)
    return references.embeddings


def _embed_labelled(index: LabelIndex, source: Path) -> LabelledEmbeddings:
    """Return labelled images with their embeddings; print what was left out."""
    from zsic_index.evaluation import embed_labelled, read_labelled

    labelled = read_labelled(source)
    embedded = embed_labelled(index, labelled)
    for path in labelled.missing[:_EXAMPLES]:
        click.echo(f"missing: {path}", err=True)
    for reason in embedded.refused:
        click.echo(f"refused: {reason}", err=True)
    if embedded.unknown:
        examples = ", ".join(map(repr, embedded.unknown[:_EXAMPLES]))
        more = ", ..." if len(embedded.unknown) > _EXAMPLES else ""
        click.echo(
            f"warning: {len(embedded.unknown)} labels are not in the index, or are the name of "
            f"several: {examples}{more}",
            err=True,
        )
    return embedded
