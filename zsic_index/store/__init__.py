"""The store: SQLAlchemy tables that hold the truth. The only room that knows about SQL."""

from zsic_index.store.location import StoreLocation
from zsic_index.store.store import LabelPlace, Store

__all__ = ["LabelPlace", "Store", "StoreLocation"]
