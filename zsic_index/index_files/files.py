"""Files that appear whole or not at all, and the trailer that says which one a file is.

A file is what FAISS wrote, and behind it, where FAISS does not look, a trailer of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import IndexFileError, StoreError
from zsic_index.records import IndexInfo

_MAGIC = b"zsicidx2"
_TRAILER = struct.Struct("<8sQ32s32sQQd")
_HEAD_BYTES = 64
"""So many bytes at a file's start are hashed; FAISS's headers are about that long."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """What is written behind a file.

    Attributes:
        generation: the index's.
        checksum: the store's, over label ids and embeddings, hexadecimal.
        head: sha256 of the file's first bytes.
        size: of what FAISS wrote, in bytes.
        effort: how thoroughly a search looks, for approximate kinds; else 0.
        measured: what was measured when it was written: recall, or a rounding error; else 0.
    """

    generation: int
    checksum: str
    head: bytes
    size: int
    effort: int = 0
    measured: float = 0.0


def path_of(files: Path, info: IndexInfo, suffix: str = "faiss") -> Path:
    """Return a file of one generation of an index."""
    return files / f"{info.name}-{info.index_id}.g{info.generation}-{info.checksum[:12]}.{suffix}"


class NewFile:
    """A temporary file that becomes one of an index when it is finished; see ``new_file``.

    Attributes:
        path: where to write what FAISS is to read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def finish(self, path: Path, info: IndexInfo, *, effort: int = 0, measured: float = 0) -> None:
        """Append a trailer and put the file at ``path``, atomically."""
        with self.path.open("r+b") as file:
            head = _hash_of_head(file.read(_HEAD_BYTES))
            size = file.seek(0, os.SEEK_END)
            digest = bytes.fromhex(info.checksum)
            trailer = (_MAGIC, info.generation, digest, head, size, effort, measured)
            file.write(_TRAILER.pack(*trailer))
            file.flush()
            os.fsync(file.fileno())
        # mkstemp lets nobody else read; a store shared by a group must stay so.
        umask = os.umask(0)
        os.umask(umask)
        self.path.chmod(0o666 & ~umask)
        self.path.replace(path)
        if hasattr(os, "O_DIRECTORY"):
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@contextlib.contextmanager
def new_file(folder: Path) -> Iterator[NewFile]:
    """Give a temporary file in ``folder``, which is made when missing.

    Raises:
        StoreError: when it cannot be written.
    """
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
        os.close(handle)
        temporary = Path(name)
        yield NewFile(temporary)
    except (OSError, RuntimeError) as error:
        # FAISS reports a failed write as a RuntimeError that names its C++ source.
        reason = error.strerror if isinstance(error, OSError) else "FAISS could not write it"
        raise StoreError(
            f"index files in {folder}: {reason}: free some space or make the folder writable; "
            "what is in the store is safe"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_trailer(path: Path, info: IndexInfo) -> Trailer:
    """Return a file's trailer when it is the file that ``info`` asks for and as long as it was.

    Raises:
        IndexFileError: when it is missing, truncated, stale or another's, and says which.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TRAILER.size))
            last = file.read()
    except FileNotFoundError:
        raise IndexFileError(f"index file {path} is missing") from None
    except OSError as error:
        raise IndexFileError(f"index file {path}: {error.strerror}") from error
    if len(last) < _TRAILER.size or not last.startswith(_MAGIC):
        raise IndexFileError(
            f"index file {path} is truncated, of an older version, or not one of ours"
        )
    _, generation, digest, said_head, said_size, effort, measured = _TRAILER.unpack(last)
    if (generation, digest.hex()) != (info.generation, info.checksum):
        raise IndexFileError(f"index file {path} is stale or belongs to another index")
    if said_head != _hash_of_head(head) or said_size != size - _TRAILER.size:
        raise IndexFileError(f"index file {path} is damaged")
    return Trailer(generation, digest.hex(), said_head, said_size, effort, measured)


def checksum(label_ids: Int64, embeddings: Iterable[Float32]) -> str:
    """Return the SHA-256 of (N,) label ids and their (n, D) blocks of embeddings, in hex."""
    digest = hashlib.sha256(np.ascontiguousarray(label_ids, "<i8").data)
    for block in embeddings:
        digest.update(np.ascontiguousarray(block, "<f4").data)
    return digest.hexdigest()


def remove_files(files: Path, info: IndexInfo, *, before: int | None = None) -> None:
    """Delete the files of an index: all of them, or those of generations ``before`` that one."""
    for path in files.glob(f"{info.name}-{info.index_id}.g*-*.*"):
        generation = path.name.rpartition(".g")[2].partition("-")[0]
        if before is None or (generation.isdigit() and int(generation) < before):
            # Another builder may have been quicker; a system that locks open files keeps it.
            with contextlib.suppress(OSError):
                path.unlink()


def _hash_of_head(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()
