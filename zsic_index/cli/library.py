"""Photo libraries: ``undo``, ``search``, ``show``, ``status``, ``export``."""

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
    absolute,
    common_options,
    decode_option,
    device_option,
    name_option,
)
from zsic_index.errors import InputError
from zsic_index.formats.text import percent, write_columns

if TYPE_CHECKING:
    from zsic_index.store.photo_records import Run, StoredPhoto


@click.command()
@click.option("--run", "run_id", metavar="ID", help="What this run gave or wrote; see status.")
@click.option("--label", help="This tag, by its last part or its whole path.")
@click.option("--model", "model_id", help="What indexes of this model gave.")
@click.option("-n", "--name", help="What the index of this name gave.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--dry-run", is_flag=True, help="Only say how much that is.")
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
    """Take tags back, from sidecars and from the store.

    Exactly what we wrote goes. A sidecar that nobody else has changed becomes what it was, byte
    for byte; one that we made goes. Of several options, all have to apply.
    """
    from zsic_index.library.undo import undo
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
        report = undo(opened, keys)
    click.echo(
        f"{report.tags:,} tags taken back from {report.photos:,} photos; sidecars: "
        f"{report.sidecars.written:,} changed, {report.sidecars.removed:,} removed"
    )
    for line in report.sidecars.problems:
        click.echo(f"left as it is: {line}", err=True)
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
    help="Photos shown.",
)
@click.option("--under", type=click.Path(path_type=Path), help="Only in and below this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@decode_option
@device_option
@common_options
def search(
    words: str,
    name: str,
    top_k: int,
    under: Path | None,
    as_json: bool,
    decode: Any,
    device: str,
    store: str | None,
) -> None:
    """Find photos by WORDS, among those that tag has looked at."""
    from zsic_index.label_index import LabelIndex
    from zsic_index.library.search import search

    with LabelIndex.open(
        name, store=store, device=device, decode=decode, keep_images=True
    ) as index:
        found = search(index, words, top_k, under=absolute(under) if under else None)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=2))
        return
    rows = [[one.photo, f"{one.similarity:.4f}"] for one in found]
    write_columns(["photo", "similarity"], rows, sys.stdout)


@click.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def show(photo: Path, as_json: bool, store: str | None) -> None:
    """Show what is known of PHOTO: its tags, where they come from, its sidecars."""
    from zsic_index.library.export import records
    from zsic_index.store import Store

    with Store.open(store) as opened:
        known = _known(opened.photos.find(*os.path.split(absolute(photo))), photo)
        (found,) = records(opened, [known])
        sidecars = opened.sidecars.find([known.photo_id]).get(known.photo_id, [])
    paths = [row.path for row in sidecars]
    if as_json:
        click.echo(json.dumps(asdict(found) | {"sidecars": paths}, ensure_ascii=False, indent=2))
        return
    click.echo(found.photo + (" (missing)" if found.missing else ""))
    if found.problem:
        click.echo(f"refused: {found.problem}")
    rows = [
        [
            one.tag,
            "" if one.probability is None else percent(one.probability),
            one.index,
            one.run,
            one.verdict or "",
        ]
        for one in found.tags
    ]
    if rows:
        write_columns(["tag", "probability", "index", "run", "verdict"], rows, sys.stdout)
    elif not found.problem:
        click.echo("no tags")
    for path in paths:
        click.echo(f"sidecar: {path}")


@click.command()
@click.option("--problems", is_flag=True, help="List the files that are refused, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def status(problems: bool, as_json: bool, store: str | None) -> None:
    """Show how many photos there are, and the runs over them."""
    from zsic_index.store import Store

    with Store.open(store) as opened:
        counts, runs = opened.photos.count(), opened.runs.all()
        refused = (
            [(one.path, one.problem) for one in opened.photos.iterate() if one.problem]
            if problems
            else []
        )
    if as_json:
        found: dict[str, Any] = {"counts": counts, "runs": [_run_record(run) for run in runs]}
        found |= {"problems": dict(refused)} if problems else {}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    click.echo(", ".join(f"{number:,} {what}" for what, number in counts.items()))
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
    help="[default: by the file's ending]",
)
@click.option("--under", type=click.Path(path_type=Path), help="Only in and below this folder.")
@common_options
def export(target: Path, format: str | None, under: Path | None, store: str | None) -> None:
    """Write the photos and their tags to TARGET.

    A .jsonl file has one photo a line with its tags, .csv and .parquet one row per tag.
    """
    from zsic_index.library.export import FORMATS, export, records
    from zsic_index.store import Store

    chosen = format or target.suffix.lower().lstrip(".")
    if chosen not in FORMATS:
        raise click.UsageError(f"{target}: give --format {', '.join(FORMATS)}")
    with Store.open(store) as opened:
        photos = opened.photos.iterate(under=absolute(under) if under else None)
        number = export(records(opened, photos), target, chosen)
    click.echo(f"{target}: {number:,} photos")


def _known(photo: StoredPhoto | None, asked: Path) -> StoredPhoto:
    if photo is None:
        raise InputError(f"{asked}: nothing is known of it: run 'zsic-index tag' on its folder")
    return photo


def _run_record(run: Run) -> dict[str, Any]:
    return asdict(run) | {"settings": dict(run.settings), "counts": dict(run.counts)}
