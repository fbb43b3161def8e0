"""Every error that zsic-index raises on purpose.

    ZsicError
    ├── InputError            something handed in is wrong (also a ValueError)
    │   ├── LabelError        labels, label files, unknown labels
    │   ├── TemplateError     prompt templates
    │   ├── ImageError        one image that is refused; the rest of a batch goes on
    │   │   ├── ImageFormatError   it is of no format that is known or allowed
    │   │   │   └── MissingExtraError  its decoder comes with an extra that is not installed
    │   │   └── ImageTooLargeError  it has more bytes or pixels than are allowed
    │   ├── SidecarError      one sidecar that is left alone; the rest of a library goes on
    │   └── EmbeddingError    ready embeddings of a wrong shape, dtype or norm
    ├── ModelError            a checkpoint that cannot be found, read or used
    ├── ServiceError          a service that cannot be reached, or does not answer as one
    └── StoreError            the database or the files derived from it
        ├── SchemaError       a database of another schema version
        ├── IndexFileError    a derived FAISS file that is missing, stale or damaged
        └── IndexNotFoundError  no index of that name (also a LookupError)

A message is one line that names the value, the limit it broke and the next step.
"""

from __future__ import annotations


class ZsicError(Exception):
    """Base of all errors below."""


class InputError(ZsicError, ValueError):
    """Something handed in is wrong."""


class LabelError(InputError):
    """A label or a label file that cannot be used."""


class TemplateError(InputError):
    """A prompt template that cannot be used."""


class ImageError(InputError):
    """One image that is refused."""


class ImageFormatError(ImageError):
    """One image that is of no format that is known or allowed."""


class ImageTooLargeError(ImageError):
    """One image of more bytes or pixels than are allowed."""


class MissingExtraError(ImageFormatError):
    """An image whose decoder is not installed.

    Args:
        name: the image.
        kind: what it is, as people say it.
        extra: the extra that brings the decoder.
    """

    def __init__(self, name: str, kind: str, extra: str) -> None:
        super().__init__(
            f"{name}: {kind} needs the extra {extra}: pip install 'zsic-index[{extra}]'"
        )
        self.extra = extra


class SidecarError(InputError):
    """One sidecar that is left as it is."""


class EmbeddingError(InputError):
    """Ready embeddings of a wrong shape, dtype or norm."""


class ModelError(ZsicError):
    """A checkpoint that cannot be found, read or used."""


class ServiceError(ZsicError):
    """A service over HTTP that cannot be reached, does not let in, or does not answer as one."""


class StoreError(ZsicError):
    """The database, or a file derived from it, cannot be used."""


class SchemaError(StoreError):
    """The database has another schema version than this program."""


class IndexFileError(StoreError):
    """A derived FAISS file that is missing, stale or damaged; it can be made again."""


class IndexNotFoundError(StoreError, LookupError):
    """No index of that name is in the store."""
