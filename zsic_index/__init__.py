"""Exact zero-shot image classification over large, fixed label sets.

Label embeddings are computed once, kept in SQLite, and scanned through a FAISS file; the results
are the probabilities of ``transformers.pipeline("zero-shot-image-classification")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsic_index.errors import (
    EmbeddingError,
    ImageError,
    IndexFileError,
    IndexNotFoundError,
    InputError,
    LabelError,
    ModelError,
    SchemaError,
    ServiceError,
    StoreError,
    TemplateError,
    ZsicError,
)
from zsic_index.records import (
    BuildReport,
    Decision,
    IndexInfo,
    LabelRecord,
    NodePrediction,
    Prediction,
    ServedIndexInfo,
)

if TYPE_CHECKING:
    from zsic_index.client import Client
    from zsic_index.label_index import LabelIndex
    from zsic_index.pipeline import CachedZeroShotImageClassificationPipeline

__version__ = "0.1.0"

__all__ = [
    "BuildReport",
    "CachedZeroShotImageClassificationPipeline",
    "Client",
    "Decision",
    "EmbeddingError",
    "ImageError",
    "IndexFileError",
    "IndexInfo",
    "IndexNotFoundError",
    "InputError",
    "LabelError",
    "LabelIndex",
    "LabelRecord",
    "ModelError",
    "NodePrediction",
    "Prediction",
    "SchemaError",
    "ServedIndexInfo",
    "ServiceError",
    "StoreError",
    "TemplateError",
    "ZsicError",
    "__version__",
]


def __getattr__(name: str) -> object:
    # These bring FAISS, SQLAlchemy and torch with them, or Pillow and an HTTP client, which
    # `zsic-index --help` does not need.
    if name == "LabelIndex":
        from zsic_index.label_index import LabelIndex

        return LabelIndex
    if name == "Client":
        from zsic_index.client import Client

        return Client
    if name == "CachedZeroShotImageClassificationPipeline":
        from zsic_index.pipeline import CachedZeroShotImageClassificationPipeline

        return CachedZeroShotImageClassificationPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
