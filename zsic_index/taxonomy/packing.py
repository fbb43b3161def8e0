"""Taxonomies as bytes, to store them beside an index."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from zsic_index.errors import StoreError
from zsic_index.taxonomy.graph import IntLists
from zsic_index.taxonomy.model import Taxonomy

_VERSION = 1

T = TypeVar("T")


def pack(taxonomy: Taxonomy) -> bytes:
    """Return a taxonomy as compressed JSON, one list per column; equal ones give equal bytes.

    Redundant columns are left out or null: names of labels, keys that equal names, empty columns.
    """
    columns = {
        "version": _VERSION,
        "names": taxonomy.names,
        "keys": None if taxonomy.keys == taxonomy.names else taxonomy.keys,
        "label_nodes": None if _all_are_labels(taxonomy) else taxonomy.label_nodes.tolist(),
        "parents": _pack_lists(taxonomy.parents) if len(taxonomy.parents.indices) else None,
        "ranks": taxonomy.ranks,
        "rank_of": taxonomy.rank_of.tolist() if taxonomy.ranks else None,
        "aliases": _pack_by_node(taxonomy.aliases),
        "languages": {tag: _pack_by_node(names) for tag, names in taxonomy.languages.items()},
        "templates": _pack_by_node(taxonomy.templates),
        "prompts": _pack_by_node(taxonomy.prompts),
        "duplicates": taxonomy.duplicates,
        "twins": taxonomy.twins,
    }
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
    return zlib.compress(text.encode())


def unpack(data: bytes) -> Taxonomy:
    """Return the taxonomy from the bytes of ``pack``.

    Raises:
        StoreError: for damaged bytes or another version of the format.
    """
    try:
        columns = json.loads(zlib.decompress(data))
        if columns["version"] != _VERSION:
            raise StoreError(
                f"the taxonomy is kept in form {columns['version']}; this program knows form "
                f"{_VERSION}: build the index again, or use the newer program"
            )
        taxonomy = _from_columns(columns)
        _check(taxonomy)
        return taxonomy
    except (zlib.error, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise StoreError(
            f"the taxonomy that is kept is damaged ({error!r}): build the index again"
        ) from error


def _from_columns(columns: dict[str, Any]) -> Taxonomy:
    names = tuple(columns["names"])
    size = len(names)
    nodes = columns["label_nodes"]
    label_nodes = np.arange(size) if nodes is None else np.array(nodes, dtype=np.int64)
    return Taxonomy(
        labels=names if nodes is None else tuple(names[node] for node in nodes),
        duplicates=tuple(columns["duplicates"]),
        twins=tuple((first, second) for first, second in columns["twins"]),
        label_nodes=label_nodes,
        names=names,
        keys=names if columns["keys"] is None else tuple(columns["keys"]),
        parents=_unpack_lists(columns["parents"], size),
        ranks=tuple(columns["ranks"]),
        rank_of=np.full(size, -1, dtype=np.int64)
        if columns["rank_of"] is None
        else np.array(columns["rank_of"], dtype=np.int64),
        aliases=_unpack_by_node(columns["aliases"], tuple),
        languages=MappingProxyType(
            {tag: _unpack_by_node(names, str) for tag, names in columns["languages"].items()}
        ),
        templates=_unpack_by_node(columns["templates"], tuple),
        prompts=_unpack_by_node(columns["prompts"], tuple),
    )


def _check(taxonomy: Taxonomy) -> None:
    size = len(taxonomy.names)
    parents = taxonomy.parents
    if not (
        len(taxonomy.keys) == len(taxonomy.rank_of) == len(parents.counts) == size
        and parents.indptr[-1] == len(parents.indices)
        and np.all(parents.counts >= 0)
        and np.all((parents.indices >= 0) & (parents.indices < parents.owners))
        and np.all((taxonomy.label_nodes >= 0) & (taxonomy.label_nodes < size))
        and np.all((taxonomy.rank_of >= -1) & (taxonomy.rank_of < len(taxonomy.ranks)))
    ):
        raise ValueError("its columns do not go together")


def _all_are_labels(taxonomy: Taxonomy) -> bool:
    return np.array_equal(taxonomy.label_nodes, np.arange(len(taxonomy.names)))


def _pack_lists(lists: IntLists) -> list[list[int]]:
    return [lists.counts.tolist(), lists.indices.tolist()]


def _unpack_lists(columns: list[list[int]] | None, size: int) -> IntLists:
    if columns is None:
        return IntLists.empty(size)
    counts, indices = (np.array(numbers, dtype=np.int64) for numbers in columns)
    return IntLists.from_counts(counts, indices)


def _pack_by_node(values: Mapping[int, T]) -> list[list[Any]]:
    return [list(values), list(values.values())]


def _unpack_by_node(columns: list[list[Any]], kind: Callable[[Any], T]) -> Mapping[int, T]:
    nodes, values = columns
    return MappingProxyType(dict(zip(nodes, map(kind, values), strict=True)))
