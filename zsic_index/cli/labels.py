"""Looking at an index's labels: ``labels``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zsic_index import outputs
from zsic_index.cli.options import common_options

if TYPE_CHECKING:
    from zsic_index.label_index import LabelIndex


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

    with LabelIndex.open(name, store=store) as index:
        if target is not None:
            with target.open("w", encoding="utf-8", newline="\n") as file:
                for record in _records(index):
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
            click.echo(f"{target}: {len(index):,} labels")
            return
        names = index.names_in(lang) if lang else {}
        found = [record for record in _records(index) if _matches(record, words)]
        outputs.write_columns(
            ["id", "label", "rank", "aliases", "path"],
            [
                [
                    str(record["label_id"]),
                    names.get(record["id"], record["label"]),
                    record["rank"] or "",
                    ", ".join(record["aliases"]),
                    outputs.PATH.join(record["path"][:-1]),
                ]
                for record in found[:limit]
            ],
            sys.stdout,
        )
        click.echo(f"{min(limit, len(found)):,} of {len(found):,} labels")


def _records(index: LabelIndex) -> Iterator[dict[str, Any]]:
    """Yield what is known about each label, in the taxonomy's order."""
    structure = index.structure
    taxonomy = structure.taxonomy
    ids = dict(zip(structure.row_order.tolist(), index.label_ids.tolist(), strict=True))
    for at, node in enumerate(taxonomy.label_nodes.tolist()):
        rank = int(taxonomy.rank_of[node])
        yield {
            "label_id": ids[at],
            "id": taxonomy.keys[node],
            "label": taxonomy.names[node],
            # What is no label has no line that a parent could be found on.
            "parent": [
                taxonomy.keys[above]
                for above in structure.parents.of(node).tolist()
                if structure.label_of[above] >= 0
            ],
            "rank": taxonomy.ranks[rank] if rank >= 0 else None,
            "aliases": list(taxonomy.aliases.get(node, ())),
            "lang": {
                tag: names[node] for tag, names in taxonomy.languages.items() if node in names
            },
            "path": [taxonomy.names[above] for above in structure.path_to(node)],
        }


def _matches(record: dict[str, Any], words: str | None) -> bool:
    if words is None:
        return True
    names = (record["label"], *record["aliases"], *record["lang"].values())
    return any(words.casefold() in name.casefold() for name in names)
