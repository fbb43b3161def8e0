"""Commands that tag photo libraries: ``tag`` and ``watch``."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zsic_index.cli.help import GroupedCommand, option_group
from zsic_index.cli.options import (
    EXIT_SOME_REFUSED,
    Command,
    common_options,
    decode_option,
    device_option,
    lang_option,
    name_option,
    quiet_option,
    runtime_option,
)
from zsic_index.errors import InputError, ZsicError
from zsic_index.formats.text import percent

if TYPE_CHECKING:
    from zsic_index.library.run_report import PhotoChange, RunReport

_MAX_LINES = 20
"""Lines about single files that a command prints at most."""

_PHOTO_OPTIONS = option_group(
    "Photos",
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Pattern of files and folders to skip: of their name, or, with a /, of their path "
        "below DIR. Repeatable.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=0),
        metavar="N",
        help="Largest number of photos to embed in this run; the rest wait for the next one.",
    ),
    click.option("--retry", is_flag=True, help="Retry unchanged files that were refused before."),
    decode_option,
    device_option,
    runtime_option,
)

_TAG_OPTIONS = option_group(
    "Tags",
    name_option,
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1),
        metavar="P",
        help="Smallest probability that makes a label a tag.  [default: 0.1]",
    ),
    click.option(
        "--thresholds",
        metavar="FILE",
        help="Thresholds per label or rank, from a .csv or .json file with the columns label or "
        "rank, and threshold; or 'calibrated' for those fitted by calibrate.",
    ),
    click.option("--calibrated", is_flag=True, help="Use the probabilities fitted by calibrate."),
    click.option(
        "--max-tags",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        metavar="N",
        help="Largest number of labels per photo.",
    ),
    click.option(
        "--allow",
        "only",
        multiple=True,
        metavar="NODE",
        help="Node of the taxonomy: give only labels at and below it. Repeatable; @FILE reads "
        "nodes from a file, one per line.",
    ),
    click.option(
        "--deny",
        multiple=True,
        metavar="NODE",
        help="Node of the taxonomy: never give labels at and below it. Repeatable; @FILE as above.",
    ),
    click.option("--ancestors", is_flag=True, help="Also give the nodes above a label as tags."),
    click.option(
        "--root",
        default="ai",
        show_default=True,
        metavar="NAME",
        help="First level of all automatic tags.",
    ),
    lang_option,
)

_SIDECAR_OPTIONS = option_group(
    "Sidecars",
    click.option(
        "--write",
        type=click.Choice(["none", "sidecar"]),
        default="none",
        show_default=True,
        help="Where tags are written in addition to the store: nowhere, or to XMP sidecars.",
    ),
    click.option(
        "--sidecar-style",
        "style",
        type=click.Choice(["full", "adobe"]),
        default="full",
        show_default=True,
        help="Name of new sidecars: photo.jpg.xmp, or photo.xmp for RAW files.",
    ),
    click.option("--both", is_flag=True, help="Update both sidecars of a photo that has two."),
)


def _tagging_options(command: Command) -> Command:
    """Add the argument and the options that ``tag`` and ``watch`` share."""
    roots = click.argument(
        "roots", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path)
    )
    quiet = option_group(
        "Output",
        quiet_option("Print neither progress nor a summary."),
    )
    command = quiet(common_options(command))
    return roots(_TAG_OPTIONS(_SIDECAR_OPTIONS(_PHOTO_OPTIONS(command))))


@click.command(cls=GroupedCommand)
@_tagging_options
@option_group(
    "Output",
    click.option(
        "--dry-run", is_flag=True, help="Print the changes, without recording or writing any."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)
def tag(dry_run: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Tag the photos in DIR... with labels of an index.

    Folders are searched recursively. Photos are never modified. Embeddings are kept by content,
    so moved or copied photos, a changed taxonomy and other thresholds need no model. An
    interrupted run continues where it stopped.
    """
    with _RunProgress(show=not quiet) as progress:
        report = _run_tagging(
            options,
            dry_run=dry_run,
            on_change=_print_change if dry_run else None,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(_summary(report), ensure_ascii=False))
    elif not quiet:
        _print_report(report, write=options["write"], dry_run=dry_run)
    _print_problems(report)
    if report.problems or report.root_problems or report.sidecars.problems:
        sys.exit(EXIT_SOME_REFUSED)


@click.command(cls=GroupedCommand)
@_tagging_options
@option_group(
    "Schedule",
    click.option(
        "--interval",
        type=click.FloatRange(min=1),
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="Pause between the end of a run and the next.",
    ),
)
def watch(interval: float, quiet: bool, **options: Any) -> None:
    """Tag the photos in DIR... repeatedly, until stopped.

    Each run lists the folders again, which works on network shares too; unchanged files cost
    almost nothing.
    """
    from zsic_index.library.run_report import RunReport

    printed: set[str] = set()
    report = _run_tagging(options)
    while True:
        if not quiet and (report.counts["photos_changed"] or report.sidecars.written):
            click.echo(time.strftime("%Y-%m-%d %H:%M:%S "), nl=False)
            _print_report(report, write=options["write"], dry_run=False)
        new_problems = [line for line in _problems(report) if line not in printed]
        printed |= set(new_problems)
        for line in new_problems:
            click.echo(line, err=True)
        time.sleep(interval)
        try:
            report = _run_tagging(options)
        except ZsicError as error:
            # An unavailable share or another run may be gone by the next turn.
            click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {error}", err=True)
            report = RunReport()


def _run_tagging(
    options: dict[str, Any],
    *,
    dry_run: bool = False,
    on_change: Callable[[PhotoChange], None] | None = None,
    progress: _RunProgress | None = None,
) -> RunReport:
    """Tag a library once, as the options of ``tag`` and ``watch`` say."""
    from zsic_index.label_index import LabelIndex
    from zsic_index.library.run_settings import RunSettings
    from zsic_index.library.tag_rules import DEFAULT_THRESHOLD, TagSettings
    from zsic_index.library.tagging import Tagging
    from zsic_index.library.walk import checked_roots
    from zsic_index.querying.thresholds import Thresholds, read_thresholds

    if options["threshold"] is not None and options["thresholds"] is not None:
        raise click.UsageError("give one of --threshold and --thresholds ('*' is every label)")
    thresholds: Thresholds | None
    if options["thresholds"] is None:
        threshold = options["threshold"]
        thresholds = Thresholds(DEFAULT_THRESHOLD if threshold is None else threshold)
    elif options["thresholds"] == "calibrated":
        thresholds = None
    else:
        thresholds = read_thresholds(options["thresholds"])
    roots = checked_roots(options["roots"])
    if progress is not None:
        progress.count_photos(roots, options["exclude"])
    with LabelIndex.open(
        options["name"],
        store=options["store"],
        device=options["device"],
        runtime=options["runtime"],
        decode=options["decode"],
        keep_images=True,
    ) as index:
        tags = TagSettings(
            root=options["root"],
            max_tags=options["max_tags"],
            only=_read_node_files(options["only"]),
            exclude=_read_node_files(options["deny"]),
            ancestors=options["ancestors"],
            language=options["lang"],
        )
        settings = RunSettings(
            roots=tuple(roots),
            exclude=options["exclude"],
            tags=tags,
            write=options["write"],
            style=options["style"],
            both=options["both"],
            limit=options["limit"],
            retry=options["retry"],
            thresholds=thresholds,
            calibrated=options["calibrated"] or thresholds is None,
        )
        return Tagging(
            settings.rules(index),
            settings,
            dry_run=dry_run,
            on_change=on_change,
            progress=progress,
        ).run()


def _read_node_files(nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of nodes, with each @FILE replaced by the names in that file."""
    names: list[str] = []
    for node in nodes:
        if node.startswith("@"):
            try:
                lines = Path(node[1:]).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{node}: cannot be read: {error}") from error
            names += [line.strip() for line in lines if line.strip() and line[0] != "#"]
        else:
            names.append(node)
    return tuple(names)


def _summary(report: RunReport) -> dict[str, Any]:
    """Return the JSON summary of a run."""
    sidecars = report.sidecars
    return {
        "run": report.run_id or None,
        "resumed": report.resumed,
        **{name: report.counts[name] for name in _COUNTS},
        "sidecars_written": sidecars.written,
        "sidecars_removed": sidecars.removed,
        "rejected_by_user": sidecars.rejected,
        "problems": _problems(report),
        "seconds": report.seconds,
    }


_COUNTS = (
    "inputs", "done", "refused", "skipped", "embedded", "reused", "unchanged", "paired",
    "photos_changed", "tags_added", "tags_withdrawn", "missing",
)  # fmt: skip


def _print_change(change: PhotoChange) -> None:
    click.echo(change.photo)
    for sign, tags in (("+", change.added), ("-", change.withdrawn)):
        for tag in tags:
            probability = "" if tag.probability is None else f"  {percent(tag.probability)}"
            click.echo(f"  {sign} {'/'.join(tag.path)}{probability}")


def _print_report(report: RunReport, *, write: str, dry_run: bool) -> None:
    counts = report.counts
    done = ", ".join(
        f"{counts[name]:,} {name}"
        for name in ("embedded", "reused", "unchanged", "paired")
        if counts[name]
    )
    head = "dry run" if dry_run else f"run {report.run_id}{' (resumed)' if report.resumed else ''}"
    click.echo(
        f"{head}: {counts['inputs']:,} files: {counts['done']:,} done"
        f"{f' ({done})' if done else ''}, {counts['refused']:,} refused, "
        f"{counts['skipped']:,} skipped; {report.seconds:.1f} s"
    )
    changed = "would change" if dry_run else "changed"
    click.echo(
        f"{counts['photos_changed']:,} photos {changed}: {counts['tags_added']:,} tags added, "
        f"{counts['tags_withdrawn']:,} withdrawn"
    )
    if counts["missing"]:
        click.echo(f"{counts['missing']:,} photos are missing; the store keeps their records")
    if write == "sidecar" and not dry_run:
        sidecars = report.sidecars
        rejected = f"; {sidecars.rejected:,} tags were removed by you" if sidecars.rejected else ""
        click.echo(
            f"sidecars: {sidecars.written:,} written, {sidecars.removed:,} removed{rejected}"
        )
    elif counts["photos_changed"] and not dry_run:
        click.echo("the tags are in the store; --write sidecar writes them for other programs")


def _problems(report: RunReport) -> list[str]:
    return [*report.root_problems, *report.problems, *report.sidecars.problems]


def _print_problems(report: RunReport) -> None:
    lines = _problems(report)
    for line in lines[:_MAX_LINES]:
        click.echo(line, err=True)
    hidden = report.counts["problems"] - len(report.problems) + max(0, len(lines) - _MAX_LINES)
    if hidden:
        click.echo(f"... and {hidden:,} more: 'zsic-index status --problems'", err=True)
    for line in report.sidecars.warnings[:_MAX_LINES]:
        click.echo(f"warning: {line}", err=True)


class _RunProgress:
    """The progress of a run, on standard error."""

    def __init__(self, *, show: bool) -> None:
        from zsic_index.cli.progress import Progress

        self._bar = Progress(show=show, what="photos")
        self._show = show
        self._total = 0

    def __enter__(self) -> _RunProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def count_photos(self, roots: list[str], exclude: tuple[str, ...]) -> None:
        """Count the photos before the run, if there is a terminal to show a bar on."""
        from zsic_index.library.walk import count

        if self._show and sys.stderr.isatty():
            self._total = sum(count(root, exclude) for root in roots)

    def __call__(self, counts: Counter[str]) -> None:
        inputs = counts["inputs"]
        self._bar(inputs, max(self._total, inputs), f"{counts['refused']:,} refused")
