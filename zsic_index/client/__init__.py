"""HTTP client of the service: ``Client`` gives the results of a ``LabelIndex``.

Nothing that a model, a store or a scan needs is imported, so that it runs on small machines.
"""

from zsic_index.client.client import Client

__all__ = ["Client"]
