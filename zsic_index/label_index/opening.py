"""Open an index's files, and rebuild them from the store when they are wrong."""

from __future__ import annotations

import logging

from zsic_index.errors import IndexFileError, StoreError
from zsic_index.index_files import (
    IndexFiles,
    compute_checksum,
    open_files,
    verify_files,
    write_files,
)
from zsic_index.records import IndexInfo
from zsic_index.store import Store

logger = logging.getLogger("zsic_index")

_OPEN_ATTEMPTS = 5
"""Generations that another process may publish while this one opens the index."""


def open_index(store: Store, name: str) -> tuple[IndexInfo, IndexFiles]:
    """Open an index's files; a missing, stale or damaged one is rebuilt from the store.

    Raises:
        IndexNotFoundError: when there is no index of that name.
        StoreError: when the store lacks what the index was built from, or a file cannot be
            written.
    """
    info = store.indexes.get(name)
    for _ in range(_OPEN_ATTEMPTS):
        try:
            return info, open_files(store.location.files, info)
        except IndexFileError as error:
            latest = store.indexes.get(name)
            if latest.generation == info.generation:
                logger.warning("%s: rebuilding it from the store", error)
                latest = rebuild_file(store, name)
            # Otherwise another process has published in between and removed the older file.
            info = latest
    return info, open_files(store.location.files, info)


def verify_file(store: Store, info: IndexInfo) -> str | None:
    """Read an index's whole file; if it is wrong, rebuild it and return the problem."""
    try:
        verify_files(store.location.files, info)
    except IndexFileError as error:
        rebuild_file(store, info.name)
        return str(error)
    return None


def verify_rows(store: Store, name: str) -> None:
    """Compare an index's rows in the store with the checksum that it was published with.

    Raises:
        StoreError: when they differ.
    """
    snapshot = store.indexes.read_snapshot(name)
    if snapshot is None:
        return
    blocks = store.embeddings.read(snapshot.embedding_ids, snapshot.info.dim)
    if compute_checksum(snapshot.label_ids, blocks) != snapshot.info.checksum:
        raise StoreError(
            f"index {name!r}: its labels or embeddings in the store are not those it was built "
            "from: restore the store from a backup, or rm the index with --prune and build it again"
        )


def rebuild_file(store: Store, name: str) -> IndexInfo:
    """Rebuild an index's files from the store; return the index as it was written."""
    snapshot = store.indexes.read_snapshot(name)
    if snapshot is None:
        return store.indexes.get(name)  # raises
    blocks = store.embeddings.read(snapshot.embedding_ids, snapshot.info.dim)
    return write_files(
        store.location.files,
        snapshot.info,
        snapshot.label_ids,
        blocks,
        expected=snapshot.info.checksum,
    )


def is_current(store: Store, info: IndexInfo) -> bool:
    """Tell whether the store still has this generation of an index."""
    latest = store.indexes.find(info.name)
    return latest is not None and (latest.index_id, latest.generation) == (
        info.index_id,
        info.generation,
    )
