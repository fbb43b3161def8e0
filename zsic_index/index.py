"""The FAISS file: written, checked and opened. It is derived from the store and disposable.

A file is an ``IndexFlatIP`` of N embeddings in an ``IndexIDMap`` of label ids, as
``faiss.read_index`` reads it, and 48 bytes of ours behind it: a magic word, the generation and the
checksum that the store has for it. FAISS does not read past its own end.

A file's name holds its generation and the head of its checksum, so a reader goes on with the one
it has mapped while the next is written, builders never write to each other's files, and a file is
whole before its generation becomes current.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from zsic_index.errors import IndexFileError, StoreError
from zsic_index.records import IndexInfo
from zsic_index.scoring import Float32, Int64

_TRAILER = struct.Struct("<8sQ32s")
_MAGIC = b"zsicidx1"

# FAISS puts the vectors 45 bytes into the file of a flat index, so mapped floats would straddle
# their natural alignment, and NumPy copies such arrays before every product (3 to 15 times slower,
# measured on 500,000 x 512). An IndexIDMap adds 37 bytes and an IndexPreTransform without
# transforms 41: with one and two of them the vectors start at byte 168, a multiple of 4.
_PADDING_LAYERS = 2


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """An open FAISS file.

    Attributes:
        label_ids: (N,) int64, the label id of each row.
        matrix: (N, D) float32 unit-norm embeddings, memory-mapped and read-only.
        faiss_index: the FAISS object that owns the memory of both.
    """

    label_ids: Int64
    matrix: Float32
    faiss_index: faiss.Index


def path_of(files: Path, info: IndexInfo) -> Path:
    """Return the file of one generation of an index."""
    return files / f"{info.name}-{info.index_id}.g{info.generation}-{info.checksum[:12]}.faiss"


def write(
    files: Path,
    info: IndexInfo,
    label_ids: Int64,
    embeddings: Iterable[Float32],
    *,
    expected: str | None = None,
) -> IndexInfo:
    """Write the file of ``info.generation``, atomically.

    Args:
        files: the folder; made when missing.
        info: gives name, id, generation and D; its checksum is not looked at.
        label_ids: (N,) int64 in row order.
        embeddings: (n, D) float32 blocks of unit norm, N rows in all.
        expected: the checksum that the content must have, where it is known.

    Returns:
        ``info`` with the checksum of what was written.

    Raises:
        StoreError: when an embedding is not of norm 1, the checksum is not the expected one, or the
            file cannot be written.
    """
    matrix_index, matrix = _empty(len(label_ids), info.dim, label_ids)
    start = 0
    for block in embeddings:
        _check_norms(block, label_ids[start : start + len(block)])
        matrix[start : start + len(block)] = block
        start += len(block)
    if start != len(label_ids):
        raise StoreError(f"index {info.name!r}: {start} embeddings for {len(label_ids)} labels")
    written = checksum(label_ids, [matrix])
    if expected not in (None, written):
        raise StoreError(
            f"index {info.name!r}: the store's labels or embeddings are not those it was built "
            "from: restore the store from a backup, or rm the index with --prune and build it again"
        )
    info = replace(info, checksum=written)
    path = path_of(files, info)
    try:
        files.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as temporary:
            faiss.write_index(matrix_index, str(temporary))
            with temporary.open("ab") as file:
                file.write(_TRAILER.pack(_MAGIC, info.generation, bytes.fromhex(written)))
                file.flush()
                os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # FAISS reports a failed write as a RuntimeError that names its C++ source.
        reason = error.strerror if isinstance(error, OSError) else "FAISS could not write it"
        raise StoreError(
            f"index file {path}: {reason}: free some space or make the folder writable; "
            "what is in the store is safe"
        ) from error
    return info


def open_file(files: Path, info: IndexInfo) -> OpenIndex:
    """Map the file of an index; nothing here takes time in proportion to N but reading its ids.

    Raises:
        IndexFileError: when the file is missing, truncated, stale or another's, and says which.
    """
    path = path_of(files, info)
    _check_trailer(path, info)
    try:
        opened = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise IndexFileError(f"index file {path} is damaged") from error
    flat, layers = opened, 0
    while hasattr(flat, "index"):
        flat, layers = faiss.downcast_index(flat.index), layers + 1
    if (
        not isinstance(opened, faiss.IndexIDMap)
        or not isinstance(flat, faiss.IndexFlatIP)
        or layers != _PADDING_LAYERS + 1
        or (flat.ntotal, flat.d) != (info.labels, info.dim)
    ):
        raise IndexFileError(f"index file {path} is not the one of index {info.name!r}")
    matrix = _view(flat)
    matrix.flags.writeable = False
    return OpenIndex(faiss.vector_to_array(opened.id_map), matrix, opened)


def verify(files: Path, info: IndexInfo) -> None:
    """Read the whole file and compare it with the store's checksum.

    Raises:
        IndexFileError: when it is not exactly what was written.
    """
    opened = open_file(files, info)
    if checksum(opened.label_ids, [opened.matrix]) != info.checksum:
        raise IndexFileError(f"index file {path_of(files, info)} is damaged: its checksum differs")


def checksum(label_ids: Int64, embeddings: Iterable[Float32]) -> str:
    """Return the SHA-256 of (N,) label ids and their (n, D) blocks of embeddings, in hex."""
    digest = hashlib.sha256(np.ascontiguousarray(label_ids, "<i8").data)
    for block in embeddings:
        digest.update(np.ascontiguousarray(block, "<f4").data)
    return digest.hexdigest()


def remove_files(files: Path, info: IndexInfo, *, before: int | None = None) -> None:
    """Delete the files of an index: all of them, or those of generations ``before`` that one."""
    for path in files.glob(f"{info.name}-{info.index_id}.g*.faiss"):
        generation = path.name.rpartition(".g")[2].partition("-")[0]
        if before is None or (generation.isdigit() and int(generation) < before):
            # Another builder may have been quicker; a system that locks open files keeps it.
            with contextlib.suppress(OSError):
                path.unlink()


def _empty(count: int, dim: int, label_ids: Int64) -> tuple[faiss.Index, Float32]:
    """Make an index of ``count`` rows and a writable (count, dim) view of its memory."""
    flat = faiss.IndexFlatIP(dim)
    layers: list[Any] = [flat]
    for _ in range(_PADDING_LAYERS):
        layers.append(faiss.IndexPreTransform(layers[-1]))
    layers.append(faiss.IndexIDMap(layers[-1]))
    # Sized at once: adding block by block would copy the whole matrix at every growth.
    flat.codes.resize(count * dim * 4)
    for layer in layers:
        layer.ntotal = count
    faiss.copy_array_to_vector(np.ascontiguousarray(label_ids, np.int64), layers[-1].id_map)
    return layers[-1], _view(flat)


def _view(flat: faiss.IndexFlatIP) -> Float32:
    view = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
    return np.asarray(view, dtype=np.float32).reshape(flat.ntotal, flat.d)


def _check_norms(block: Float32, label_ids: Int64) -> None:
    norms = np.linalg.norm(block, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) < 1e-3))
    if len(wrong):
        raise StoreError(
            f"the embedding of label {int(label_ids[wrong[0]])} has norm {norms[wrong[0]]:g}, "
            "not 1: the store is damaged; rm the index with --prune and build it again"
        )


def _check_trailer(path: Path, info: IndexInfo) -> None:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - _TRAILER.size))
            trailer = file.read()
    except FileNotFoundError:
        raise IndexFileError(f"index file {path} is missing") from None
    except OSError as error:
        raise IndexFileError(f"index file {path}: {error.strerror}") from error
    least = info.labels * (info.dim * 4 + 8) + _TRAILER.size
    if size < least or len(trailer) < _TRAILER.size:
        raise IndexFileError(f"index file {path} is truncated: {size} bytes of at least {least}")
    magic, generation, digest = _TRAILER.unpack(trailer)
    if magic != _MAGIC:
        raise IndexFileError(f"index file {path} is truncated or not one of ours")
    if (generation, digest.hex()) != (info.generation, info.checksum):
        raise IndexFileError(f"index file {path} is stale or belongs to another index")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` that takes its place when the block ends well."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp lets nobody else read; a store shared by a group must stay so.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
