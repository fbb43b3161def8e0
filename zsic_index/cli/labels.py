"""Looking at an index's labels: ``labels``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from zsic_index.cli.options import common_options
from zsic_index.formats.predictions import PATH
from zsic_index.formats.text import write_columns


@click.command()
@click.argument("name")
@click.option(
    "--search", "words", metavar="WORDS", help="Only labels with this in one of their names."
)
@click.option("--lang", metavar="TAG", help="Print names in this language, where there are any.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Labels shown."
)
@click.option(
    "--export",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all of them to a .jsonl file, from which they can be built again.",
)
@common_options
def labels(
    name: str,
    words: str | None,
    lang: str | None,
    limit: int,
    target: Path | None,
    store: str | None,
) -> None:
    """Search, show or export the labels of the index NAME."""
    from zsic_index.label_index import LabelIndex
    from zsic_index.label_index.listing import matching, records

    with LabelIndex.open(name, store=store) as index:
        if target is not None:
            with target.open("w", encoding="utf-8", newline="\n") as file:
                for record in records(index, range(len(index))):
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
            click.echo(f"{target}: {len(index):,} labels")
            return
        names = index.structure.names_in(lang) if lang else {}
        found = matching(index, words)
        write_columns(
            ["id", "label", "rank", "aliases", "path"],
            [
                [
                    str(record["label_id"]),
                    names.get(record["id"], record["label"]),
                    record["rank"] or "",
                    ", ".join(record["aliases"]),
                    PATH.join(record["path"][:-1]),
                ]
                for record in records(index, found[:limit])
            ],
            sys.stdout,
        )
        click.echo(f"{min(limit, len(found)):,} of {len(found):,} labels")
