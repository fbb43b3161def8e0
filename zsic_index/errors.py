"""Exceptions of zsic-index.

    ZsicError
    ├── InputError            a wrong argument or file (also a ValueError)
    │   ├── LabelError        labels, label files, unknown labels
    │   ├── TemplateError     prompt templates
    │   ├── ImageError        one image that is refused; the rest of a batch goes on
    │   │   ├── ImageFormatError   a format that is unknown or not allowed
    │   │   │   └── MissingExtraError  a format whose decoder is not installed
    │   │   └── ImageTooLargeError  more bytes or pixels than allowed
    │   ├── SidecarError      one sidecar that is left unchanged; the rest of a library goes on
    │   └── EmbeddingError    embeddings of a wrong shape, dtype or norm
    ├── ModelError            a checkpoint that cannot be found, read or used
    ├── ServiceError          a service that is unreachable, refuses access or answers wrongly
    └── StoreError            the database or the files derived from it
        ├── SchemaError       a database of another schema version
        ├── IndexFileError    a derived FAISS file that is missing, stale or damaged
        └── IndexNotFoundError  no index of that name (also a LookupError)

A message is one line that names the value, the limit it broke and the next step.
"""

from __future__ import annotations


class ZsicError(Exception):
    """Base of all exceptions of zsic-index."""


class InputError(ZsicError, ValueError):
    """A wrong argument or input file."""


class LabelError(InputError):
    """A label or a label file that cannot be used."""


class TemplateError(InputError):
    """A prompt template that cannot be used."""


class ImageError(InputError):
    """An image that is refused."""


class ImageFormatError(ImageError):
    """An image of a format that is unknown or not allowed."""


class ImageTooLargeError(ImageError):
    """An image with more bytes or pixels than allowed."""


class MissingExtraError(ImageFormatError):
    """An image whose decoder is not installed.

    Args:
        name: the image.
        kind: name of the format for people, such as HEIC.
        extra: extra that installs the decoder.
    """

    def __init__(self, name: str, kind: str, extra: str) -> None:
        super().__init__(
            f"{name}: {kind} needs the extra {extra}: pip install 'zsic-index[{extra}]'"
        )
        self.extra = extra


class SidecarError(InputError):
    """A sidecar that is left unchanged."""


class EmbeddingError(InputError):
    """Embeddings of a wrong shape, dtype or norm."""


class ModelError(ZsicError):
    """A checkpoint that cannot be found, read or used."""


class ServiceError(ZsicError):
    """An HTTP service that is unreachable, refuses access or answers wrongly."""


class StoreError(ZsicError):
    """A database, or a file derived from it, that cannot be used."""


class SchemaError(StoreError):
    """A database with another schema version than this program's."""


class IndexFileError(StoreError):
    """A derived FAISS file that is missing, stale or damaged; it can be rebuilt."""


class IndexNotFoundError(StoreError, LookupError):
    """An index name that the store does not have."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error of torch says that something does not fit into a device's memory."""
    message = str(error)
    return "out of memory" in message or "CUBLAS_STATUS_ALLOC_FAILED" in message


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
