"""The files of an index, derived from the store and disposable. The only room that knows FAISS.

Every index has one file of its float32 embeddings (``flat``). The other kinds have a second file
beside it, which is what a scan or a search goes through first: half-precision embeddings
(``half``), or a graph or inverted lists (``approximate``).

A file's name holds its generation and the head of its checksum, so a reader goes on with the one
it has mapped while the next is written, builders never write to each other's files, and a file is
whole before its generation becomes current.
"""

from zsic_index.index_files.approximate import Approximate
from zsic_index.index_files.files import checksum, path_of, remove_files
from zsic_index.index_files.flat import OpenIndex, open_file, verify, write
from zsic_index.index_files.half import Half

__all__ = [
    "Approximate",
    "Half",
    "OpenIndex",
    "checksum",
    "open_file",
    "path_of",
    "remove_files",
    "verify",
    "write",
]
