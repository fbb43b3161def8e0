"""Making indexes: ``build`` and ``import``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from zsic_index.cli.options import (
    LabelFile,
    common_options,
    device_option,
    model_option,
    name_option,
    revision_option,
)
from zsic_index.cli.progress import Progress
from zsic_index.prompts import TEMPLATE_SETS
from zsic_index.records import Kind, NamePooling

if TYPE_CHECKING:
    from zsic_index.records import BuildReport
    from zsic_index.taxonomy import Taxonomy

kind_option = click.option(
    "--kind",
    type=click.Choice(get_args(Kind)),
    default="flat",
    show_default=True,
    help="flat and float16 (half the memory) scan every label; hnsw and ivf search "
    "approximately, and softmax probabilities are then estimates with an interval.",
)


@click.command()
@click.argument("labels", type=LabelFile())
@model_option
@click.option(
    "-t",
    "--template",
    "templates",
    multiple=True,
    help="A string with exactly one {}, a named set "
    f"({', '.join(TEMPLATE_SETS)}), or a text file with one a line. May be given several times; "
    "embeddings are then averaged.  "
    f'[default: "{TEMPLATE_SETS["default"][0]}"]',
)
@name_option
@revision_option
@device_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="What both towers compute in, then and when images come.",
)
@kind_option
@click.option(
    "--names",
    type=click.Choice(get_args(NamePooling)),
    default="mean",
    show_default=True,
    help="What a label with aliases is: the mean of its names' embeddings, its best name, or the "
    "summed probability of all (softmax models). max and mass keep a row for each name.",
)
@click.option(
    "--ranks",
    metavar="COLUMNS",
    help="Columns of a table that hold a rank each, from the top down, with commas between them.",
)
@click.option("--leaves-only", is_flag=True, help="Only labels that have nothing below them.")
@click.option(
    "--check",
    "check_only",
    is_flag=True,
    help="Report labels that get in each other's way, encode nothing, and build nothing.",
)
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@common_options
def build(
    labels: Path,
    model: str,
    templates: tuple[str, ...],
    name: str,
    revision: str | None,
    device: str,
    dtype: Any,
    kind: Any,
    names: Any,
    ranks: str | None,
    leaves_only: bool,
    check_only: bool,
    quiet: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """Build an index of LABELS, encoding only what is new.

    LABELS is a .txt file with one label a line, indented below its parent where there is one; a
    .csv or .tsv file with a "label" column and any of id, parent, rank, aliases, template, prompt
    and lang:de, or with a column for each rank; or a .json or .jsonl file of strings or of objects
    with these; or builtin:photo-tags or builtin:emoji.
    """
    from zsic_index import taxonomy
    from zsic_index.label_index import LabelIndex

    checked = taxonomy.read(
        labels, leaves_only=leaves_only, ranks=tuple(ranks.split(",")) if ranks else ()
    )
    if check_only:
        _check(checked, model, templates, revision, as_json=as_json)
        return
    with (
        Progress(show=not quiet) as progress,
        LabelIndex.build(
            checked,
            model=model,
            templates=templates or None,
            name=name,
            revision=revision,
            store=store,
            device=device,
            dtype=dtype,
            kind=kind,
            name_pooling=names,
            progress=progress,
        ) as index,
    ):
        report = index.report
    assert report is not None, "a built index has a report"
    _warn_about(report, checked.twins)
    _print_report(report, quiet=quiet, as_json=as_json)


@click.command("import")
@click.argument("labels", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("embeddings", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--logit-scale", type=float, required=True, help="Multiplier, exponentiated.")
@click.option("--logit-bias", type=float, default=0.0, show_default=True)
@click.option(
    "--activation",
    type=click.Choice(["softmax", "sigmoid"]),
    default="softmax",
    show_default=True,
)
@click.option("--key", help="Name of the array in an .npz or .safetensors file that has several.")
@name_option
@click.option("-m", "--model", help="The model whose vision tower fits, to query with images.")
@revision_option
@kind_option
@click.option("--quiet", is_flag=True, help="No summary.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@common_options
def import_(
    labels: Path,
    embeddings: Path,
    logit_scale: float,
    logit_bias: float,
    activation: Any,
    key: str | None,
    name: str,
    model: str | None,
    revision: str | None,
    kind: Any,
    quiet: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """Make an index of label EMBEDDINGS that were computed elsewhere.

    EMBEDDINGS is an .npy, .npz or .safetensors file with one (N, D) floating-point array, in the
    order of LABELS.
    """
    from zsic_index.formats.embedding_files import read_array
    from zsic_index.label_index import LabelIndex

    with LabelIndex.from_embeddings(
        labels,
        read_array(embeddings, key),
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        activation=activation,
        kind=kind,
        name=name,
        model=model,
        revision=revision,
        store=store,
    ) as index:
        assert index.report is not None, "an imported index has a report"
        _print_report(index.report, quiet=quiet, as_json=as_json)


def _check(
    taxonomy: Taxonomy,
    model: str,
    templates: tuple[str, ...],
    revision: str | None,
    *,
    as_json: bool,
) -> None:
    """Print what of labels can be told without encoding them."""
    from zsic_index import encoders, prompts
    from zsic_index.encoders.source import EncoderSource
    from zsic_index.taxonomy.check import check

    encoder = EncoderSource.of(encoders.resolve(model, revision, "float32"), device="cpu").encoder()
    report = check(
        taxonomy,
        prompts.resolve(templates or None),
        tokenise=encoder.token_ids,
        max_tokens=encoder.max_tokens,
    )
    names = taxonomy.labels

    def named(groups: tuple[tuple[int, ...], ...]) -> list[list[str]]:
        return [[names[at] for at in group] for group in groups]

    found: dict[str, list[Any]] = {
        "given more than once": list(report.duplicates),
        "names of several labels": [group[0] for group in named(report.homonyms)],
        "that differ only in case or Unicode form": [list(pair) for pair in report.twins],
        "that look alike": named(report.look_alikes),
        "with the same prompts": named(report.same_prompts),
        "with the same tokens": named(report.same_tokens),
        f"of more than {encoder.max_tokens} tokens, which are cut": [
            names[at] for at, _ in report.too_long
        ],
    }
    if as_json:
        click.echo(json.dumps({"labels": len(names)} | found, ensure_ascii=False, indent=2))
        return
    click.echo(f"{len(names):,} labels")
    for what, examples in found.items():
        shown = "; ".join(" / ".join(e) if isinstance(e, list) else e for e in examples[:3])
        more = "; ..." if len(examples) > 3 else ""
        click.echo(f"{what}: {len(examples):,}" + (f" ({shown}{more})" if examples else ""))


def _warn_about(report: BuildReport, twins: tuple[tuple[str, str], ...]) -> None:
    if report.duplicates:
        _warn(f"{len(report.duplicates)} labels were given more than once", report.duplicates)
    if report.truncated:
        _warn(f"{len(report.truncated)} prompts over the token limit were cut", report.truncated)
    if twins:
        _warn(
            f"{len(twins)} pairs of labels differ only in case or Unicode form and share their "
            "probability",
            [f"{first} / {second}" for first, second in twins],
        )


def _warn(what: str, examples: Any) -> None:
    shown = ", ".join(repr(example) for example in list(examples)[:3])
    more = ", ..." if len(examples) > 3 else ""
    click.echo(f"warning: {what}: {shown}{more}", err=True)


def _print_report(report: BuildReport, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report), ensure_ascii=False, indent=2))
    elif not quiet:
        click.echo(
            f"{report.name}: {report.labels:,} labels, {report.encoded_labels:,} encoded "
            f"({report.encoded_prompts:,} prompts), {report.reused_labels:,} from the store, "
            f"{report.removed_labels:,} removed; {report.seconds:.1f} s"
        )
