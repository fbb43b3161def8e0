"""Queries about images, and their compilation for an index.

A ``query.Query`` says what is asked; ``compiled`` prepares it for one index and returns a function
from image embeddings to decisions. ``decider`` applies ``thresholds``, prediction sets, ``rules``
for "none of these" and ``negatives``. ``options`` describes the query's fields for the command line
and the service.
"""
