"""Half-precision embeddings beside the float32 ones: half the memory that a scan has to read.

A file is an ``IndexScalarQuantizer`` of 16-bit floats, as ``faiss.read_index`` reads it. What
rounding did to them at most is measured when it is written, so that a scan knows which rows it has
to look at again in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from zsic_index.embedding_arrays import Float32
from zsic_index.errors import IndexFileError
from zsic_index.index_files import files
from zsic_index.records import IndexInfo

_BLOCK = 1 << 14


@dataclass(frozen=True, slots=True)
class Half:
    """Rounded embeddings.

    Attributes:
        matrix: (N, D) float16, memory-mapped and read-only.
        rounding: the largest norm of (embedding - rounded embedding): no similarity with a query of
            norm 1 is off by more.
    """

    matrix: npt.NDArray[np.float16]
    rounding: float


def empty(count: int, dim: int) -> tuple[faiss.IndexScalarQuantizer, npt.NDArray[np.float16]]:
    """Make an index of ``count`` rows, and a writable (count, dim) float16 view of its memory."""
    index = faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    # Sized at once: adding block by block would copy all of it at every growth.
    index.codes.resize(count * dim * 2)
    index.ntotal = count
    view = np.asarray(faiss.rev_swig_ptr(index.codes.data(), count * dim * 2))
    return index, view.view(np.float16).reshape(count, dim)


def write(path: Path, info: IndexInfo, matrix: Float32) -> None:
    """Round (N, D) float32 embeddings and write them."""
    index, halves = empty(*matrix.shape)
    rounding = 0.0
    for start in range(0, len(matrix), _BLOCK):
        block = matrix[start : start + _BLOCK]
        halves[start : start + _BLOCK] = block
        off = block.astype(np.float64) - halves[start : start + _BLOCK]
        rounding = max(rounding, float(np.linalg.norm(off, axis=1).max()))
    # Without a layer around it the numbers would begin at an odd byte.
    layer = faiss.IndexPreTransform(index)
    layer.ntotal = index.ntotal
    with files.new_file(path.parent) as new:
        faiss.write_index(layer, str(new.path))
        new.finish(path, info, measured=rounding)


def open_file(path: Path, info: IndexInfo) -> Half:
    """Map the file.

    Raises:
        IndexFileError: when it is not the one of ``info``.
    """
    trailer = files.read_trailer(path, info)
    # The codes are the last that FAISS writes.
    offset = trailer.size - info.labels * info.dim * 2
    if offset < 0:
        raise IndexFileError(f"index file {path} is not the one of index {info.name!r}")
    matrix = np.memmap(path, np.float16, "r", offset, (info.labels, info.dim))
    return Half(np.asarray(matrix), trailer.measured)


def verify(path: Path, half: Half, matrix: Float32) -> None:
    """Compare rounded embeddings with the (N, D) float32 ones.

    Raises:
        IndexFileError: when a row is not what rounding makes of it.
    """
    for start in range(0, len(matrix), _BLOCK):
        block = matrix[start : start + _BLOCK].astype(np.float16)
        if not np.array_equal(block, half.matrix[start : start + _BLOCK]):
            raise IndexFileError(f"index file {path} is damaged: it differs from the float32 one")
