"""Labels of an index as records, and search among their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from zsic_index.label_index.label_index import LabelIndex


def matching(index: LabelIndex, words: str | None) -> Sequence[int]:
    """Return the labels with ``words`` in one of their names, ignoring case.

    Args:
        index: the index.
        words: text to search for; None for all labels.

    Returns:
        Positions of labels in the taxonomy's order.
    """
    taxonomy = index.structure.taxonomy
    nodes = taxonomy.label_nodes
    if words is None:
        return range(len(nodes))
    folded = words.casefold()
    languages = list(taxonomy.languages.values())

    def names(node: int) -> Iterator[str]:
        yield taxonomy.names[node]
        yield from taxonomy.aliases.get(node, ())
        yield from (names[node] for names in languages if node in names)

    return [
        at
        for at, node in enumerate(nodes.tolist())
        if any(folded in name.casefold() for name in names(node))
    ]


def records(index: LabelIndex, places: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield records of labels, with the keys of a JSON Lines label file.

    Args:
        index: the index.
        places: positions in the taxonomy's order.
    """
    structure = index.structure
    taxonomy = structure.taxonomy
    nodes = taxonomy.label_nodes
    ids = np.empty(len(nodes), dtype=np.int64)
    ids[structure.row_order] = index.label_ids
    for at in places:
        node = int(nodes[at])
        rank = int(taxonomy.rank_of[node])
        yield {
            "label_id": int(ids[at]),
            "id": taxonomy.keys[node],
            "label": taxonomy.names[node],
            # A node that is not a label has no record that could be a parent.
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
