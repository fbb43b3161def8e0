"""FAISS files of an index, derived from the store and disposable; the only package that uses FAISS.

Every index has one file of its float32 embeddings (``matrix``). Kinds other than ``flat`` have a
second file, which a scan or a search goes through first: half-precision embeddings
(``half_precision``), or a graph or inverted lists (``approximate_search``). ``kinds`` handles the
files of an index together.

A file's name contains its generation and the start of its checksum. So a reader goes on with the
file that it has mapped while the next one is written, concurrent builders never write to the same
file, and a file is complete before its generation becomes current.
"""

from zsic_index.index_files.approximate_search import ApproximateSearch
from zsic_index.index_files.files import compute_checksum, locate_file, remove_files
from zsic_index.index_files.half_precision import HalfPrecision
from zsic_index.index_files.kinds import IndexFiles, open_files, verify_files, write_files

__all__ = [
    "ApproximateSearch",
    "HalfPrecision",
    "IndexFiles",
    "compute_checksum",
    "locate_file",
    "open_files",
    "remove_files",
    "verify_files",
    "write_files",
]
