"""Asking an index: ``query``."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zsic_index import outputs
from zsic_index.cli.options import common_options, device_option, name_option
from zsic_index.errors import ImageError
from zsic_index.records import NodePrediction, Prediction

if TYPE_CHECKING:
    from zsic_index.calibration import Calibration
    from zsic_index.images import ImageSource
    from zsic_index.label_index import LabelIndex


EXIT_SOME_REFUSED = 3

NEGATIVE_LIMIT = 0.5
"""What negative labels may have of the probability."""


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
@click.option("--under", metavar="NODE", help="Only among the labels below a node of the taxonomy.")
@click.option("--rank", help="Roll up to a rank of the taxonomy, or to 'depth 2' and so on.")
@click.option(
    "--deepest",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FLOOR",
    help="The deepest node of the taxonomy whose probability reaches FLOOR.",
)
@click.option(
    "--floor",
    "floors",
    multiple=True,
    metavar="RANK=FLOOR",
    help="Another floor for nodes of a rank, with --deepest. May be given several times.",
)
@click.option(
    "--independent",
    is_flag=True,
    help="Sigmoid models: a node's probability is that of at least one of its labels, not the "
    "largest.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Leave out labels that are less probable.",
)
@click.option(
    "--thresholds",
    metavar="FILE",
    help="The same for each label or rank, from a .csv or .json file with label or rank, and "
    "threshold; 'calibrated' for those that calibrate has fitted.",
)
@click.option(
    "--sets",
    "as_sets",
    is_flag=True,
    help="All labels of the prediction set that calibrate --coverage has fitted.",
)
@click.option(
    "--none-below",
    type=click.FloatRange(0, 1),
    help="Say 'none of these' where the best label is less probable.",
)
@click.option(
    "--none-within",
    type=click.FloatRange(0, 1),
    help="Say 'none of these' where the best label is so little ahead of the second.",
)
@click.option(
    "--negative",
    "negatives",
    multiple=True,
    metavar="NAME",
    help="Something that is none of the labels: where such have half of the probability, say "
    "'none of these'. May be given several times.",
)
@click.option("--calibrated", is_flag=True, help="Use what calibrate has fitted for the index.")
@click.option("--lang", metavar="TAG", help="Print names in this language, where there are any.")
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
    under: str | None,
    rank: str | None,
    deepest: float | None,
    floors: tuple[str, ...],
    independent: bool,
    threshold: float | None,
    thresholds: str | None,
    as_sets: bool,
    none_below: float | None,
    none_within: float | None,
    negatives: tuple[str, ...],
    calibrated: bool,
    lang: str | None,
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
    from zsic_index.calibration import required
    from zsic_index.decider import Decider, Decision
    from zsic_index.decisions import Thresholds, read_thresholds
    from zsic_index.label_index import LabelIndex

    if sum(one is not None for one in (under, rank, deepest)) > 1:
        raise click.UsageError("give one of --under, --rank and --deepest")
    by_rank = _floors(floors)
    labels = [*chosen, *(taxonomy.read(chosen_file).labels if chosen_file else ())]
    of_nodes = rank is not None or deepest is not None
    if of_nodes and labels:
        raise click.UsageError("--rank and --deepest are over the whole index: leave labels out")
    if threshold is not None and thresholds is not None:
        raise click.UsageError("give one of --threshold and --thresholds ('*' is every label)")
    rules = _rules(none_below, none_within, negatives)
    decides = bool(rules or as_sets or threshold is not None or thresholds is not None)
    if decides and (of_nodes or labels or under or over_index):
        raise click.UsageError(
            "thresholds, sets and 'none of these' are about all labels: leave --label, --labels, "
            "--under, --rank, --deepest and --over-index out"
        )
    calibrated = calibrated or as_sets or thresholds == "calibrated"
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

    def answers(index: LabelIndex) -> Iterator[Sequence[outputs.Answer] | ImageError]:
        if rank is not None:
            return index.stream_rank(sources(), rank=rank, top_k=top_k, independent=independent)
        if deepest is not None:
            return index.stream_deepest(
                sources(), floor=deepest, by_rank=by_rank, independent=independent
            )
        return index.stream(
            sources(),
            top_k=top_k,
            labels=[*labels, *(index.labels_under(under) if under else ())] or None,
            encode_missing=encode_missing,
            over_index=over_index or under is not None,
        )

    def decisions(index: LabelIndex, fitted: Calibration | None) -> Iterator[Decision | ImageError]:
        chosen: Any = None
        if threshold is not None:
            chosen = Thresholds(threshold)
        elif thresholds == "calibrated":
            chosen = required(fitted and fitted.thresholds, "thresholds", "--precision")
        elif thresholds is not None:
            chosen = read_thresholds(thresholds)
        limit = None
        if as_sets:
            limit = required(fitted.conformal if fitted else None, "sets", "--coverage")
        decider = Decider(index, rules=rules, thresholds=chosen, sets=limit, negatives=negatives)
        return decider.stream(sources(), top_k=top_k)

    def results(index: LabelIndex, fitted: Calibration | None) -> Iterator[outputs.Classified]:
        translate = _translator(index, lang)
        found = decisions(index, fitted) if decides else answers(index)
        for number, result in enumerate(found):
            shown = names[number]
            if isinstance(result, ImageError):
                counts["refused"] += 1
                click.echo(f"refused: {_named(shown, result)}", err=True)
                continue
            counts["done"] += 1
            if isinstance(result, Decision):
                named = translate(result.predictions)
                yield outputs.Classified(shown, named, result.reason)
            else:
                yield outputs.Classified(shown, translate(result))

    with LabelIndex.open(
        name, store=store, device=device, decode=decode, keep_images=keep_images
    ) as index:
        fitted = index.required_calibration() if calibrated else None
        index.use(fitted)
        outputs.write(results(index, fitted), format, sys.stdout, nodes=of_nodes)
    if counts["refused"]:
        total = sum(counts.values())
        click.echo(f"{total} inputs: {counts['done']} done, {counts['refused']} refused", err=True)
        sys.exit(EXIT_SOME_REFUSED)


def _rules(
    none_below: float | None, none_within: float | None, negatives: tuple[str, ...]
) -> list[Any]:
    """Return the rules that say "none of these"."""
    from zsic_index.decisions import LeastMargin, LeastProbability, MostNegativeMass

    rules: list[Any] = []
    if none_below is not None:
        rules.append(LeastProbability(none_below))
    if none_within is not None:
        rules.append(LeastMargin(none_within))
    if negatives:
        rules.append(MostNegativeMass(NEGATIVE_LIMIT))
    return rules


def _floors(given: tuple[str, ...]) -> dict[str, float]:
    """Return floors by rank from RANK=FLOOR."""
    found = {}
    for entry in given:
        rank, sign, floor = entry.rpartition("=")
        try:
            found[rank] = float(floor)
        except ValueError:
            sign = ""
        if not sign or not rank:
            raise click.UsageError(f"--floor {entry!r}: give RANK=FLOOR, such as species=0.9")
    return found


def _translator(
    index: LabelIndex, language: str | None
) -> Callable[[Sequence[outputs.Answer]], Sequence[outputs.Answer]]:
    """Return what puts names of another language into predictions."""
    if language is None:
        return lambda predictions: predictions
    names = index.names_in(language)

    def translate(predictions: Sequence[outputs.Answer]) -> Sequence[outputs.Answer]:
        ids = [p.label_id for p in predictions if isinstance(p, Prediction) and p.label_id]
        keys = dict(zip(ids, index.keys_of(ids), strict=True))
        found = []
        for one in predictions:
            key = one.key if isinstance(one, NodePrediction) else keys.get(one.label_id or 0)
            found.append(replace(one, label=names.get(key or "", one.label)))
        return found

    return translate


def _expand(image: str) -> Iterator[tuple[str, ImageSource]]:
    """Yield (name, source) for what one IMAGE argument stands for."""
    from zsic_index.images import files_below

    path = Path(image)
    if image == "-":
        yield "-", sys.stdin.buffer.read()
    elif path.is_dir():
        for child in files_below(path):
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
