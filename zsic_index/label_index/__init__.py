"""LabelIndex: build, open, search and roll up a fixed set of labels."""

from zsic_index.label_index.label_index import LabelIndex

__all__ = ["LabelIndex"]
