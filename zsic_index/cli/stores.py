"""Commands on a store and its indexes: ``list``, ``info``, ``rm``, ``verify`` and ``db``."""

from __future__ import annotations

import json
import sys
import time

import click

from zsic_index.cli.onnx import describe_tower
from zsic_index.cli.options import common_options
from zsic_index.errors import ZsicError
from zsic_index.formats.text import write_columns
from zsic_index.records import to_json


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def list_(as_json: bool, store: str | None) -> None:
    """List the indexes of the store."""
    from zsic_index.store import Store

    with Store.open(store) as opened:
        indexes = opened.indexes.all()
    if as_json:
        click.echo(json.dumps(list(map(to_json, indexes)), ensure_ascii=False, indent=2))
        return
    write_columns(
        ["name", "labels", "dim", "model", "templates", "updated"],
        [
            [
                index.name,
                f"{index.labels:,}",
                str(index.dim),
                index.model_id or "(imported)",
                str(len(index.templates)),
                _local_time(index.updated_at),
            ]
            for index in indexes
        ],
        sys.stdout,
    )


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def info(name: str, as_json: bool, store: str | None) -> None:
    """Show the model, templates, size and file of index NAME."""
    from zsic_index.index_files import ApproximateSearch, HalfPrecision, locate_file
    from zsic_index.label_index import opening
    from zsic_index.label_index.towers import find_towers
    from zsic_index.store import Store

    with Store.open(store) as opened:
        index_info, files = opening.open_index(opened, name)
        location = opened.location
        towers = find_towers(opened, index_info)
    values = to_json(index_info) | {
        "store": location.name,
        "file": str(locate_file(location.files, index_info)),
    }
    match files.first_pass:
        case HalfPrecision() as half:
            values["rounding"] = half.rounding
        case ApproximateSearch() as approximate:
            values |= {"effort": approximate.effort, "recall_at_10": approximate.recall}
        case None:
            pass
    if as_json:
        values["onnx_towers"] = [
            {"folder": str(tower.folder)} | to_json(tower.record) for tower in towers
        ]
        click.echo(json.dumps(values, ensure_ascii=False, indent=2))
        return
    for tower in towers:
        values[f"onnx_{tower.record.precision}"] = describe_tower(tower)
    values["created_at"] = _local_time(index_info.created_at)
    values["updated_at"] = _local_time(index_info.updated_at)
    values["templates"] = "; ".join(index_info.templates) or "(imported)"
    width = max(map(len, values))
    for key, value in values.items():
        click.echo(f"{key:<{width}}  {'-' if value is None else value}")


@click.command()
@click.argument("name")
@click.option(
    "--prune", is_flag=True, help="Also delete label embeddings that no other index uses."
)
@common_options
def rm(name: str, prune: bool, store: str | None) -> None:
    """Remove index NAME.

    Its label embeddings stay in the store, so that a later build reuses them, unless --prune is
    given.
    """
    from zsic_index.index_files import remove_files
    from zsic_index.label_index.towers import remove_unused_towers
    from zsic_index.store import Store

    with Store.open(store) as opened:
        removed = opened.indexes.remove(name, prune=prune)
        remove_files(opened.location.files, removed)
        remove_unused_towers(opened)
    click.echo(f"removed {name}: {removed.labels:,} labels")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common_options
def verify(names: tuple[str, ...], store: str | None) -> None:
    """Check the store and the files of its indexes.

    NAMEs limit the check to some indexes. A missing, stale or damaged file is rebuilt and
    reported; a damaged ONNX tower is removed, and written anew by the next build or onnx write.
    So are temporary files of killed processes that are older than a day.
    Damage in the store itself is reported, never repaired, and the exit code is 1.
    """
    from zsic_index.formats.atomic_files import remove_old_temporaries
    from zsic_index.label_index import opening
    from zsic_index.label_index.towers import remove_damaged_towers
    from zsic_index.store import Store

    with Store.open(store) as opened:
        problems = opened.find_problems()
        infos = [opened.indexes.get(name) for name in names] if names else opened.indexes.all()
        for index_info in infos:
            try:
                opening.verify_rows(opened, index_info.name)
                rebuilt = opening.verify_file(opened, index_info)
            except ZsicError as error:
                problems.append(str(error))
            else:
                state = f"rebuilt ({rebuilt})" if rebuilt else "ok"
                for problem in remove_damaged_towers(opened, index_info):
                    state += f"; removed: {problem}"
                click.echo(f"{index_info.name}: {index_info.labels:,} labels: {state}")
        for path in remove_old_temporaries(opened.location.files):
            click.echo(f"removed: {path}, left by a process that was killed")
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    if problems:
        raise click.ClickException(f"{len(problems)} problems found; nothing was changed")
    click.echo("store: ok")


@click.group()
def db() -> None:
    """Manage the database of the store."""


@db.command()
@common_options
def upgrade(store: str | None) -> None:
    """Upgrade the database to the current schema, in one transaction."""
    from zsic_index.store import Store

    before, after = Store.upgrade(store)
    if before == after:
        click.echo(f"schema {after}: nothing to do")
    else:
        click.echo(f"schema {before or '(empty)'} -> {after}")


def _local_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
