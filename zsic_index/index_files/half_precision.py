"""The file of embeddings rounded to float16: a scan reads half the memory.

It is an ``IndexScalarQuantizer`` of 16-bit floats, as ``faiss.read_index`` reads it. The largest
rounding error is measured when it is written; it tells a scan which rows to score again in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from zsic_index.embedding_arrays import Float32
from zsic_index.errors import IndexFileError
from zsic_index.index_files.files import create_file, read_trailer
from zsic_index.records import IndexInfo

_BLOCK = 1 << 14


@dataclass(frozen=True, slots=True)
class HalfPrecision:
    """Embeddings rounded to float16.

    Attributes:
        matrix: (N, D) float16, memory-mapped and read-only.
        rounding: largest norm of (embedding - rounded embedding): an upper bound of the error of a
            similarity with a query of norm 1.
    """

    matrix: npt.NDArray[np.float16]
    rounding: float


def allocate(count: int, dim: int) -> tuple[faiss.IndexScalarQuantizer, npt.NDArray[np.float16]]:
    """Return an index of ``count`` rows, and a writable (count, dim) float16 view of its memory."""
    index = faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    # Resized once: adding block by block would copy everything each time it grows.
    index.codes.resize(count * dim * 2)
    index.ntotal = count
    view = np.asarray(faiss.rev_swig_ptr(index.codes.data(), count * dim * 2))
    return index, view.view(np.float16).reshape(count, dim)


def write(path: Path, info: IndexInfo, matrix: Float32) -> None:
    """Round (N, D) float32 embeddings and write them."""
    index, rounded = allocate(*matrix.shape)
    rounding = 0.0
    for start in range(0, len(matrix), _BLOCK):
        block = matrix[start : start + _BLOCK]
        rounded[start : start + _BLOCK] = block
        error = block.astype(np.float64) - rounded[start : start + _BLOCK]
        rounding = max(rounding, float(np.linalg.norm(error, axis=1).max()))
    # Without a layer around it, the numbers would start at an odd byte.
    layer = faiss.IndexPreTransform(index)
    layer.ntotal = index.ntotal
    with create_file(path.parent) as new:
        faiss.write_index(layer, str(new.path))
        new.finish(path, info, measured=rounding)


def open_file(path: Path, info: IndexInfo) -> HalfPrecision:
    """Map the file.

    Raises:
        IndexFileError: when it is not the file of ``info``.
    """
    trailer = read_trailer(path, info)
    # FAISS writes the codes last.
    offset = trailer.size - info.labels * info.dim * 2
    if offset < 0:
        raise IndexFileError(f"index file {path} is not the one of index {info.name!r}")
    matrix = np.memmap(path, np.float16, "r", offset, (info.labels, info.dim))
    return HalfPrecision(np.asarray(matrix), trailer.measured)


def verify(path: Path, half: HalfPrecision, matrix: Float32) -> None:
    """Compare rounded embeddings with the (N, D) float32 ones.

    Raises:
        IndexFileError: when a row is not its float32 embedding rounded.
    """
    for start in range(0, len(matrix), _BLOCK):
        block = matrix[start : start + _BLOCK].astype(np.float16)
        if not np.array_equal(block, half.matrix[start : start + _BLOCK]):
            raise IndexFileError(f"index file {path} is damaged: it differs from the float32 one")
