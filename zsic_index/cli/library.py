"""Commands on tagged photo libraries: ``undo``, ``search``, ``show``, ``status``, ``export``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zsic_index.cli.options import (
    EXIT_SOME_REFUSED,
    absolute_path,
    common_options,
    decode_option,
    device_option,
    name_option,
    runtime_option,
    under_option,
)
from zsic_index.errors import InputError
from zsic_index.formats.text import percent, write_columns

if TYPE_CHECKING:
    from zsic_index.store.photo_records import Run


@click.command()
@click.option(
    "--run", "run_id", metavar="ID", help="Run whose tags are withdrawn; status lists the runs."
)
@click.option("--label", metavar="TAG", help="Tag to withdraw, by its last part or its whole path.")
@click.option(
    "--model", "model_id", metavar="MODEL", help="Model whose indexes' tags are withdrawn."
)
@click.option("-n", "--name", metavar="NAME", help="Index whose tags are withdrawn.")
@click.option("--all", "everything", is_flag=True, help="Withdraw all tags.")
@click.option("--dry-run", is_flag=True, help="Print the number of tags and change nothing.")
@common_options
def undo(
    run_id: str | None,
    label: str | None,
    model_id: str | None,
    name: str | None,
    everything: bool,
    dry_run: bool,
    store: str | None,
) -> None:
    """Withdraw automatic tags from sidecars and the store.

    Only what zsic-index wrote is removed. A sidecar that no other program has changed since is
    restored byte for byte; one that zsic-index created is deleted. Several options select the tags
    that match all of them.
    """
    from zsic_index.library.undo import undo as undo_tags
    from zsic_index.store import Store

    if everything == any((run_id, label, model_id, name)):
        raise click.UsageError("give --run, --label, --model or --name; or else --all")
    with Store.open(store) as opened:
        runs = {run.run_id for run in opened.runs.all()}
        if run_id is not None and run_id not in runs:
            raise InputError(f"no run {run_id!r}: 'zsic-index status' lists them")
        paths = opened.tags.find_paths(label) if label is not None else None
        keys = opened.tags.find_keys(run_id=run_id, paths=paths, model_id=model_id, name=name)
        if dry_run:
            click.echo(f"{sum(map(len, keys.values())):,} tags on {len(keys):,} photos")
            return
        report = undo_tags(opened, keys)
    click.echo(
        f"{report.tags:,} tags withdrawn from {report.photos:,} photos; sidecars: "
        f"{report.sidecars.written:,} changed, {report.sidecars.removed:,} removed"
    )
    for line in report.sidecars.problems:
        click.echo(f"not changed: {line}", err=True)
    if report.sidecars.problems:
        sys.exit(EXIT_SOME_REFUSED)


@click.command()
@click.argument("words")
@name_option
@click.option(
    "-k",
    "--top-k",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Number of photos.",
)
@under_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@decode_option
@device_option
@runtime_option
@common_options
def search(
    words: str,
    name: str,
    top_k: int,
    under: Path | None,
    as_json: bool,
    decode: Any,
    device: str,
    runtime: Any,
    store: str | None,
) -> None:
    """Find tagged photos by WORDS, the closest first."""
    from zsic_index.label_index import LabelIndex
    from zsic_index.library.search import search as search_photos

    with LabelIndex.open(
        name, store=store, device=device, runtime=runtime, decode=decode, keep_images=True
    ) as index:
        matches = search_photos(index, words, top_k, under=absolute_path(under) if under else None)
    if as_json:
        click.echo(json.dumps([asdict(match) for match in matches], ensure_ascii=False, indent=2))
        return
    rows = [[match.photo, f"{match.similarity:.4f}"] for match in matches]
    write_columns(["photo", "similarity"], rows, sys.stdout)


@click.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def show(photo: Path, as_json: bool, store: str | None) -> None:
    """Show the tags of PHOTO, their origin and its sidecars."""
    from zsic_index.library.export import records
    from zsic_index.store import Store

    with Store.open(store) as opened:
        entry = opened.photos.find(*os.path.split(absolute_path(photo)))
        if entry is None:
            raise InputError(f"{photo}: not in the store: run 'zsic-index tag' on its folder")
        (record,) = records(opened, [entry])
        sidecars = opened.sidecars.find([entry.photo_id]).get(entry.photo_id, [])
    paths = [sidecar.path for sidecar in sidecars]
    if as_json:
        click.echo(json.dumps(asdict(record) | {"sidecars": paths}, ensure_ascii=False, indent=2))
        return
    click.echo(record.photo + (" (missing)" if record.missing else ""))
    if record.problem:
        click.echo(f"refused: {record.problem}")
    rows = [
        [
            tag.tag,
            "" if tag.probability is None else percent(tag.probability),
            tag.index,
            tag.run,
            tag.verdict or "",
        ]
        for tag in record.tags
    ]
    if rows:
        write_columns(["tag", "probability", "index", "run", "verdict"], rows, sys.stdout)
    elif not record.problem:
        click.echo("no tags")
    for path in paths:
        click.echo(f"sidecar: {path}")


@click.command()
@click.option("--problems", is_flag=True, help="List the refused files and the reasons.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def status(problems: bool, as_json: bool, store: str | None) -> None:
    """Show the number of photos and the runs over them."""
    from zsic_index.store import Store

    with Store.open(store) as opened:
        counts, runs = opened.photos.count(), opened.runs.all()
        refused = (
            [(photo.path, photo.problem) for photo in opened.photos.iterate() if photo.problem]
            if problems
            else []
        )
    if as_json:
        report: dict[str, Any] = {"counts": counts, "runs": [_run_record(run) for run in runs]}
        report |= {"problems": dict(refused)} if problems else {}
        click.echo(json.dumps(report, ensure_ascii=False, indent=2))
        return
    click.echo(", ".join(f"{number:,} {kind}" for kind, number in counts.items()))
    rows = [
        [
            run.run_id,
            run.index_name,
            "interrupted" if run.state == "running" else run.state,
            f"{run.counts.get('done', 0):,}",
            f"+{run.counts.get('tags_added', 0):,} -{run.counts.get('tags_withdrawn', 0):,}",
            str(run.settings.get("write", "")),
        ]
        for run in runs
    ]
    if rows:
        write_columns(["run", "index", "state", "done", "tags", "write"], rows, sys.stdout)
    for path, problem in refused:
        click.echo(problem if problem and problem.startswith(path) else f"{path}: {problem}")


@click.command()
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-f",
    "--format",
    "format",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    help="File format.  [default: the suffix of TARGET]",
)
@under_option
@common_options
def export(target: Path, format: str | None, under: Path | None, store: str | None) -> None:
    """Export photos and their tags to the file TARGET.

    A .jsonl file has one line per photo with its tags; .csv and .parquet have one row per tag.
    """
    from zsic_index.library.export import FORMATS, records
    from zsic_index.library.export import export as export_photos
    from zsic_index.store import Store

    format = format or target.suffix.lower().lstrip(".")
    if format not in FORMATS:
        raise click.UsageError(f"{target}: give --format {', '.join(FORMATS)}")
    with Store.open(store) as opened:
        photos = opened.photos.iterate(under=absolute_path(under) if under else None)
        number = export_photos(records(opened, photos), target, format)
    click.echo(f"{target}: {number:,} photos")


def _run_record(run: Run) -> dict[str, Any]:
    return asdict(run) | {"settings": dict(run.settings), "counts": dict(run.counts)}
