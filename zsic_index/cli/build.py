"""Commands that make indexes: ``build`` and ``import``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from zsic_index.cli.help import GroupedCommand, option_group
from zsic_index.cli.options import (
    LabelFile,
    common_options,
    device_option,
    model_option,
    name_option,
    quiet_option,
    revision_option,
    runtime_option,
)
from zsic_index.cli.progress import Progress
from zsic_index.prompts import TEMPLATE_SETS
from zsic_index.records import Kind, NamePooling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zsic_index.records import BuildReport
    from zsic_index.taxonomy import Taxonomy

_EXAMPLES = 3
"""Labels that a warning names."""

kind_option = click.option(
    "--kind",
    type=click.Choice(get_args(Kind)),
    default="flat",
    show_default=True,
    help="Kind of search. flat and float16 (half the memory) scan every label; hnsw and ivf are "
    "approximate and estimate softmax probabilities with an interval.",
)


@click.command(cls=GroupedCommand)
@click.argument("labels", type=LabelFile())
@option_group(
    "Labels",
    click.option(
        "--ranks",
        metavar="COLUMNS",
        help="Columns of a table that hold one rank each, from the top down, separated by commas.",
    ),
    click.option("--leaves-only", is_flag=True, help="Use only nodes without children as labels."),
    click.option(
        "--check",
        "check_only",
        is_flag=True,
        help="Report labels that are easily confused and prompts that are too long, then stop: "
        "nothing is encoded or built.",
    ),
)
@option_group(
    "Model and prompts",
    model_option,
    revision_option,
    click.option(
        "-t",
        "--template",
        "templates",
        multiple=True,
        metavar="TEMPLATE",
        help="String with exactly one {}, name of a template set "
        f"({', '.join(TEMPLATE_SETS)}), or text file with one template per line. Repeatable: the "
        "embeddings of several templates are averaged.  "
        f'[default: "{TEMPLATE_SETS["default"][0]}"]',
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        show_default=True,
        help="Number format that both towers compute in, for labels now and for images later.",
    ),
    device_option,
    runtime_option,
)
@option_group(
    "Index",
    name_option,
    kind_option,
    click.option(
        "--name-pooling",
        "--names",
        "name_pooling",
        type=click.Choice(get_args(NamePooling)),
        default="mean",
        show_default=True,
        help="How a label's name and aliases are combined: mean of their embeddings, the name with "
        "the maximum similarity, or the total probability mass of all (softmax models). max and "
        "mass keep one row per name.",
    ),
)
@option_group(
    "Output",
    quiet_option("Print neither progress nor a summary."),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)
@common_options
def build(
    labels: Path,
    model: str,
    templates: tuple[str, ...],
    name: str,
    revision: str | None,
    device: str,
    runtime: Any,
    dtype: Any,
    kind: Any,
    name_pooling: Any,
    ranks: str | None,
    leaves_only: bool,
    check_only: bool,
    quiet: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """Build an index of LABELS, encoding only new ones.

    LABELS is one of:

    \b
    .txt          one label per line, indented below its parent
    .csv, .tsv    a "label" column and any of id, parent, rank, aliases,
                  template, prompt, lang:de; or one column per rank
    .json, .jsonl strings, or objects with the same keys
    builtin:photo-tags, builtin:emoji
    """  # noqa: D301
    from zsic_index.label_index import LabelIndex
    from zsic_index.taxonomy import read as read_taxonomy

    taxonomy = read_taxonomy(
        labels, leaves_only=leaves_only, ranks=tuple(ranks.split(",")) if ranks else ()
    )
    if check_only:
        _print_problems(taxonomy, model, templates, revision, as_json=as_json)
        return
    with (
        Progress(show=not quiet) as progress,
        Progress(show=not quiet, what="images for the ONNX tower") as tower_progress,
        LabelIndex.build(
            taxonomy,
            model=model,
            templates=templates or None,
            name=name,
            revision=revision,
            store=store,
            device=device,
            runtime=runtime,
            dtype=dtype,
            kind=kind,
            name_pooling=name_pooling,
            progress=progress,
            tower_progress=tower_progress,
        ) as index,
    ):
        report = index.report
    assert report is not None, "a built index has a report"
    _print_warnings(report, taxonomy.twins)
    _print_report(report, quiet=quiet, as_json=as_json)


@click.command("import", cls=GroupedCommand)
@click.argument("labels", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("embeddings", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@option_group(
    "Embeddings",
    click.option(
        "--key", help="Name of the array, for an .npz or .safetensors file that holds several."
    ),
    click.option(
        "--logit-scale",
        type=float,
        required=True,
        help="Multiplier of the similarity, already exponentiated.",
    ),
    click.option(
        "--logit-bias",
        type=float,
        default=0.0,
        show_default=True,
        help="Offset of the logit.",
    ),
    click.option(
        "--activation",
        type=click.Choice(["softmax", "sigmoid"]),
        default="softmax",
        show_default=True,
        help="Function from logits to probabilities: softmax for CLIP, sigmoid for SigLIP.",
    ),
)
@option_group(
    "Model",
    click.option(
        "-m",
        "--model",
        metavar="MODEL",
        help="Model whose vision tower matches the embeddings; needed to query with images.",
    ),
    revision_option,
)
@option_group("Index", name_option, kind_option)
@option_group(
    "Output",
    quiet_option("Print no summary."),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)
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
    """Make an index from existing label EMBEDDINGS.

    EMBEDDINGS is an .npy, .npz or .safetensors file with one (N, D) floating-point array whose
    rows are in the order of LABELS.
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


def _print_problems(
    taxonomy: Taxonomy,
    model: str,
    templates: tuple[str, ...],
    revision: str | None,
    *,
    as_json: bool,
) -> None:
    """Print labels that are easily confused and prompts that are too long."""
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
    labels = taxonomy.labels

    def names_of(groups: tuple[tuple[int, ...], ...]) -> list[list[str]]:
        return [[labels[position] for position in group] for group in groups]

    problems: dict[str, list[Any]] = {
        "given more than once": list(report.duplicates),
        "names of several labels": [group[0] for group in names_of(report.homonyms)],
        "that differ only in case or Unicode form": [list(pair) for pair in report.twins],
        "that look alike": names_of(report.look_alikes),
        "with the same prompts": names_of(report.same_prompts),
        "with the same tokens": names_of(report.same_tokens),
        f"of more than {encoder.max_tokens} tokens, which are cut": [
            labels[position] for position, _ in report.too_long
        ],
    }
    if as_json:
        click.echo(json.dumps({"labels": len(labels)} | problems, ensure_ascii=False, indent=2))
        return
    click.echo(f"{len(labels):,} labels")
    for problem, groups in problems.items():
        examples = "; ".join(
            " / ".join(group) if isinstance(group, list) else group for group in groups[:_EXAMPLES]
        )
        more = "; ..." if len(groups) > _EXAMPLES else ""
        click.echo(f"{problem}: {len(groups):,}" + (f" ({examples}{more})" if groups else ""))


def _print_warnings(report: BuildReport, twins: tuple[tuple[str, str], ...]) -> None:
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


def _warn(message: str, examples: Sequence[str]) -> None:
    listed = ", ".join(map(repr, examples[:_EXAMPLES]))
    more = ", ..." if len(examples) > _EXAMPLES else ""
    click.echo(f"warning: {message}: {listed}{more}", err=True)


def _print_report(report: BuildReport, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report), ensure_ascii=False, indent=2))
    elif not quiet:
        click.echo(
            f"{report.name}: {report.labels:,} labels, {report.encoded_labels:,} encoded "
            f"({report.encoded_prompts:,} prompts), {report.reused_labels:,} from the store, "
            f"{report.removed_labels:,} removed; {report.seconds:.1f} s"
        )
