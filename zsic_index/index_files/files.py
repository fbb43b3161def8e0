"""Atomic creation of index files, and the trailer that identifies them.

A file has the content that FAISS wrote, followed by a trailer, which FAISS ignores.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import IndexFileError, StoreError
from zsic_index.formats.atomic_files import put_in_place, remove_old_temporaries, temporary_file
from zsic_index.records import IndexInfo

_MAGIC = b"zsicidx2"
_TRAILER = struct.Struct("<8sQ32s32sQQd")
_HEAD_BYTES = 64
"""Number of bytes hashed at the start of a file: about the length of FAISS's headers."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """Numbers in the trailer of a file.

    Attributes:
        size: bytes of FAISS's content.
        effort: search effort of approximate kinds; else 0.
        measured: recall of approximate kinds, largest rounding error of half precision; else 0.
    """

    size: int
    effort: int
    measured: float


def locate_file(folder: Path, info: IndexInfo, suffix: str = "faiss") -> Path:
    """Return the path of a file of one generation of an index."""
    return folder / f"{info.name}-{info.index_id}.g{info.generation}-{info.checksum[:12]}.{suffix}"


class NewFile:
    """A temporary file that becomes a file of an index when it is finished; see ``create_file``.

    Attributes:
        path: where to write FAISS's content.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def finish(self, path: Path, info: IndexInfo, *, effort: int = 0, measured: float = 0) -> None:
        """Append a trailer and move the file to ``path``, atomically."""
        with self.path.open("r+b") as file:
            head = _hash_head(file.read(_HEAD_BYTES))
            size = file.seek(0, os.SEEK_END)
            digest = bytes.fromhex(info.checksum)
            trailer = (_MAGIC, info.generation, digest, head, size, effort, measured)
            file.write(_TRAILER.pack(*trailer))
            file.flush()
            os.fsync(file.fileno())
        put_in_place(self.path, path)


@contextlib.contextmanager
def create_file(folder: Path) -> Iterator[NewFile]:
    """Yield a temporary file in ``folder``, which is created when missing; delete it at the end.

    Raises:
        StoreError: when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_old_temporaries(folder)
        with temporary_file(folder) as temporary:
            yield NewFile(temporary)
    except (OSError, RuntimeError) as error:
        # FAISS reports a failed write as a RuntimeError that names its C++ source.
        reason = error.strerror if isinstance(error, OSError) else "FAISS could not write it"
        raise StoreError(
            f"index files in {folder}: {reason}: free some space or make the folder writable; "
            "what is in the store is safe"
        ) from error


def read_trailer(path: Path, info: IndexInfo) -> Trailer:
    """Return the trailer of a file, after checking that the file is a complete one of ``info``.

    Raises:
        IndexFileError: when it is missing, truncated, stale or belongs to another index; the
            message says which.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TRAILER.size))
            tail = file.read()
    except FileNotFoundError:
        raise IndexFileError(f"index file {path} is missing") from None
    except OSError as error:
        raise IndexFileError(f"index file {path}: {error.strerror}") from error
    if len(tail) < _TRAILER.size or not tail.startswith(_MAGIC):
        raise IndexFileError(
            f"index file {path} is truncated, of an older version, or not one of ours"
        )
    _, generation, digest, written_head, written_size, effort, measured = _TRAILER.unpack(tail)
    if (generation, digest.hex()) != (info.generation, info.checksum):
        raise IndexFileError(f"index file {path} is stale or belongs to another index")
    if written_head != _hash_head(head) or written_size != size - _TRAILER.size:
        raise IndexFileError(f"index file {path} is damaged")
    return Trailer(written_size, effort, measured)


def compute_checksum(label_ids: Int64, embeddings: Iterable[Float32]) -> str:
    """Return the sha256 of (R,) label ids and their (n, D) blocks of embeddings, in hex."""
    digest = hashlib.sha256(np.ascontiguousarray(label_ids, "<i8").data)
    for block in embeddings:
        digest.update(np.ascontiguousarray(block, "<f4").data)
    return digest.hexdigest()


def remove_files(folder: Path, info: IndexInfo, *, before: int | None = None) -> None:
    """Delete the files of an index: all, or those of generations ``before`` the given one."""
    for path in folder.glob(f"{info.name}-{info.index_id}.g*-*.*"):
        generation = path.name.rpartition(".g")[2].partition("-")[0]
        if before is None or (generation.isdigit() and int(generation) < before):
            # Another builder may have deleted it already, or the system locks open files.
            with contextlib.suppress(OSError):
                path.unlink()


def _hash_head(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()
