"""Tagging photo libraries: ``tag`` and ``watch``."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zsic_index.cli.options import (
    EXIT_SOME_REFUSED,
    Command,
    common_options,
    decode_option,
    device_option,
    name_option,
)
from zsic_index.errors import InputError, ZsicError
from zsic_index.formats.text import percent

if TYPE_CHECKING:
    from zsic_index.library.run_report import Change, RunReport

_SHOWN = 20
"""Lines about single files that are printed."""

_TAG_OPTIONS = (
    click.argument(
        "roots",
        nargs=-1,
        required=True,
        metavar="DIR...",
        type=click.Path(path_type=Path),
    ),
    name_option,
    click.option(
        "--write",
        type=click.Choice(["none", "sidecar"]),
        default="none",
        show_default=True,
        help="Where tags go beside the store: XMP sidecars, or nowhere.",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1),
        help="The probability from which on a label becomes a tag.  [default: 0.1]",
    ),
    click.option(
        "--thresholds",
        metavar="FILE",
        help="The same for each label or rank, from a .csv or .json file with label or rank, and "
        "threshold; 'calibrated' for those that calibrate has fitted.",
    ),
    click.option("--calibrated", is_flag=True, help="Use what calibrate has fitted for the index."),
    click.option(
        "--max-tags",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Labels per photo at most.",
    ),
    click.option(
        "--allow",
        "only",
        multiple=True,
        metavar="NODE",
        help="Give only labels at and below this node of the taxonomy. May be given several times; "
        "@FILE for one a line.",
    ),
    click.option(
        "--deny",
        multiple=True,
        metavar="NODE",
        help="Never give labels at and below this node. May be given several times; @FILE.",
    ),
    click.option("--ancestors", is_flag=True, help="The nodes above a label become tags too."),
    click.option(
        "--root", default="ai", show_default=True, help="The first level of automatic tags."
    ),
    click.option("--lang", metavar="TAG", help="Names in this language, where there are any."),
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Leave out files and folders of this name; with a / of this path below DIR. May be "
        "given several times.",
    ),
    decode_option,
    click.option(
        "--sidecar-style",
        "style",
        type=click.Choice(["full", "adobe"]),
        default="full",
        show_default=True,
        help="Name of new sidecars: photo.jpg.xmp, or photo.xmp for RAW files.",
    ),
    click.option("--both", is_flag=True, help="Update both sidecars of a photo that has two."),
    click.option(
        "--limit",
        type=click.IntRange(min=0),
        help="Put at most so many photos through the model; the rest wait for the next run.",
    ),
    click.option("--retry", is_flag=True, help="Try unchanged files again that were refused."),
    click.option("--quiet", is_flag=True, help="No progress and no summary."),
    device_option,
    common_options,
)


def tag_options(command: Command) -> Command:
    """Add what ``tag`` and ``watch`` both take."""
    for option in reversed(_TAG_OPTIONS):
        command = option(command)
    return command


@click.command()
@tag_options
@click.option("--dry-run", is_flag=True, help="Print what would change; record and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def tag(dry_run: bool, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Give the photos in DIR... tags.

    Folders are searched with their subfolders. Embeddings are kept by content: photos that were
    moved or copied, another taxonomy or another threshold need no model. Photos are never written
    to. A run that was interrupted goes on where it stopped.
    """
    with _RunProgress(show=not quiet) as progress:
        report = _tag(
            asked,
            dry_run=dry_run,
            on_change=_print_change if dry_run else None,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(_summary(report), ensure_ascii=False))
    elif not quiet:
        _print_report(report, asked, dry_run=dry_run)
    _print_problems(report)
    if report.problems or report.root_problems or report.sidecars.problems:
        sys.exit(EXIT_SOME_REFUSED)


@click.command()
@tag_options
@click.option(
    "--interval",
    type=click.FloatRange(min=1),
    default=60,
    show_default=True,
    help="Seconds between the end of a run and the next.",
)
def watch(interval: float, quiet: bool, **asked: Any) -> None:
    """Tag DIR... again and again, until it is stopped.

    Folders are looked through each time, which works on network shares too; what has not changed
    costs next to nothing.
    """
    from zsic_index.library.run_report import RunReport

    said: set[str] = set()
    report = _tag(asked)
    while True:
        if not quiet and (report.counts["photos_changed"] or report.sidecars.written):
            click.echo(time.strftime("%Y-%m-%d %H:%M:%S "), nl=False)
            _print_report(report, asked, dry_run=False)
        fresh = [line for line in _problems(report) if line not in said]
        said |= set(fresh)
        for line in fresh:
            click.echo(line, err=True)
        time.sleep(interval)
        try:
            report = _tag(asked)
        except ZsicError as error:
            # A share that is down for a while, another run: the next time it may be over.
            click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {error}", err=True)
            report = RunReport()


def _tag(
    asked: dict[str, Any],
    *,
    dry_run: bool = False,
    on_change: Callable[[Change], None] | None = None,
    progress: _RunProgress | None = None,
) -> RunReport:
    from zsic_index.label_index import LabelIndex
    from zsic_index.library.run_settings import RunSettings
    from zsic_index.library.tag_rules import DEFAULT_THRESHOLD, TagSettings
    from zsic_index.library.tagging import Tagging
    from zsic_index.library.walk import checked_roots
    from zsic_index.querying.thresholds import Thresholds, read_thresholds

    threshold, thresholds = asked["threshold"], asked["thresholds"]
    if threshold is not None and thresholds is not None:
        raise click.UsageError("give one of --threshold and --thresholds ('*' is every label)")
    chosen: Thresholds | None
    if thresholds is None:
        chosen = Thresholds(DEFAULT_THRESHOLD if threshold is None else threshold)
    else:
        chosen = None if thresholds == "calibrated" else read_thresholds(thresholds)
    roots = checked_roots(asked["roots"])
    if progress is not None:
        progress.count(roots, asked["exclude"])
    with LabelIndex.open(
        asked["name"],
        store=asked["store"],
        device=asked["device"],
        decode=asked["decode"],
        keep_images=True,
    ) as index:
        tags = TagSettings(
            asked["root"],
            asked["max_tags"],
            _listed(asked["only"]),
            _listed(asked["deny"]),
            asked["ancestors"],
            asked["lang"],
        )
        settings = RunSettings(
            tuple(roots),
            asked["exclude"],
            tags,
            asked["write"],
            asked["style"],
            asked["both"],
            asked["limit"],
            asked["retry"],
            chosen,
            asked["calibrated"] or chosen is None,
        )
        return Tagging(
            index,
            settings.rules(index),
            settings,
            dry_run=dry_run,
            on_change=on_change,
            progress=progress,
        ).run()


def _listed(nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Return names, those of files given as @FILE included."""
    found: list[str] = []
    for node in nodes:
        if node.startswith("@"):
            try:
                lines = Path(node[1:]).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{node}: cannot be read: {error}") from error
            found += [line.strip() for line in lines if line.strip() and line[0] != "#"]
        else:
            found.append(node)
    return tuple(found)


def _summary(report: RunReport) -> dict[str, Any]:
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


def _print_change(change: Change) -> None:
    click.echo(change.photo)
    for sign, tags in (("+", change.added), ("-", change.withdrawn)):
        for one in tags:
            said = "" if one.probability is None else f"  {percent(one.probability)}"
            click.echo(f"  {sign} {'/'.join(one.path)}{said}")


def _print_report(report: RunReport, asked: dict[str, Any], *, dry_run: bool) -> None:
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
    would = "would change" if dry_run else "changed"
    click.echo(
        f"{counts['photos_changed']:,} photos {would}: {counts['tags_added']:,} tags added, "
        f"{counts['tags_withdrawn']:,} withdrawn"
    )
    if counts["missing"]:
        click.echo(f"{counts['missing']:,} photos are not there any more; they are remembered")
    if asked["write"] == "sidecar" and not dry_run:
        sidecars = report.sidecars
        taken_out = f"; {sidecars.rejected:,} tags taken out by you" if sidecars.rejected else ""
        click.echo(
            f"sidecars: {sidecars.written:,} written, {sidecars.removed:,} removed{taken_out}"
        )
    elif counts["photos_changed"] and not dry_run:
        click.echo("the tags are in the store; --write sidecar writes them for other programs")


def _problems(report: RunReport) -> list[str]:
    return [*report.root_problems, *report.problems, *report.sidecars.problems]


def _print_problems(report: RunReport) -> None:
    lines = _problems(report)
    for line in lines[:_SHOWN]:
        click.echo(line, err=True)
    hidden = report.counts["problems"] - len(report.problems) + max(0, len(lines) - _SHOWN)
    if hidden:
        click.echo(f"... and {hidden:,} more: 'zsic-index status --problems'", err=True)
    for line in report.sidecars.warnings[:_SHOWN]:
        click.echo(f"warning: {line}", err=True)


class _RunProgress:
    """How far a run is, on standard error."""

    def __init__(self, *, show: bool) -> None:
        from zsic_index.cli.progress import Progress

        self._bar = Progress(show=show, what="photos")
        self._show = show
        self._total = 0

    def __enter__(self) -> _RunProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def count(self, roots: list[str], exclude: tuple[str, ...]) -> None:
        """Count the photos first, where someone looks at a bar."""
        from zsic_index.library.walk import count

        if self._show and sys.stderr.isatty():
            self._total = sum(count(root, exclude) for root in roots)

    def __call__(self, counts: Counter[str]) -> None:
        seen = counts["inputs"]
        self._bar(seen, max(self._total, seen), f"{counts['refused']:,} refused")
