"""The ``labels`` command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from zsic_index.cli.options import common_options, lang_option
from zsic_index.formats.predictions import PATH_SEPARATOR
from zsic_index.formats.text import write_columns


@click.command()
@click.argument("name")
@click.option(
    "--search", "words", metavar="WORDS", help="Text that one of a label's names has to contain."
)
@lang_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="Largest number of labels printed.",
)
@click.option(
    "--export",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for all labels as .jsonl, which build reads again.",
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
    """Search, print or export the labels of index NAME."""
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
        positions = matching(index, words)
        write_columns(
            ["id", "label", "rank", "aliases", "path"],
            [
                [
                    str(record["label_id"]),
                    names.get(record["id"], record["label"]),
                    record["rank"] or "",
                    ", ".join(record["aliases"]),
                    PATH_SEPARATOR.join(record["path"][:-1]),
                ]
                for record in records(index, positions[:limit])
            ],
            sys.stdout,
        )
        click.echo(f"{min(limit, len(positions)):,} of {len(positions):,} labels")
