"""The database of indexes and photo libraries; the only package that uses SQL."""

from zsic_index.store.labels import LabelPlace
from zsic_index.store.location import StoreLocation
from zsic_index.store.store import Store

__all__ = ["LabelPlace", "Store", "StoreLocation"]
