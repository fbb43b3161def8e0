"""Asking a service over HTTP: ``Client`` answers as ``LabelIndex`` does.

Nothing that a model, a store or a scan needs is imported, so that a small machine can ask.
"""

from zsic_index.client.client import Client

__all__ = ["Client"]
