"""Requests to a service: from keyword arguments or a query to a JSON document or a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from zsic_index.errors import InputError, LabelError
from zsic_index.querying.query import OPTIONS, Query

_FORM_TEXTS = 500
"""Maximum number of texts in a form, within the limit of any service; more are sent as JSON."""

# These are options of Query, which describes them; a test holds names and types equal.


class _CommonOptions(TypedDict, total=False):
    """Options for labels and nodes alike.

    Attributes:
        templates: templates (or names of template sets) to use instead of the index's own; only
            if the service was started with ``--templates``. The first request takes as long as
            encoding the labels.
    """

    top_k: int
    calibrated: bool
    lang: str | None
    templates: Sequence[str] | None


class LabelOptions(_CommonOptions, total=False):
    """Options of a query for labels; see ``Query``."""

    labels: Sequence[str] | None
    over_index: bool
    under: str | None
    threshold: float | None
    thresholds: Literal["calibrated"] | None
    sets: bool
    none_below: float | None
    none_within: float | None


class NodeOptions(_CommonOptions, total=False):
    """Options of a query for nodes of the taxonomy; see ``Query``."""

    rank: str | None
    deepest: float | None
    floors: Mapping[str, float] | None
    independent: bool


class QueryOptions(LabelOptions, NodeOptions, total=False):
    """All options of a query to a service; see ``Query``."""


def document_of_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON document of a request, given keyword arguments.

    Raises:
        InputError: for options that a service does not offer, or that exclude each other.
        TypeError: for an unknown option.
    """
    values = {name: value for name, value in options.items() if value is not None}
    templates = values.pop("templates", ())
    # An empty list would select all labels of the index.
    if not len(values.get("labels", "all")):
        raise LabelError("labels is empty: give at least one, or None for all")
    return document_of_query(Query(**values), templates)


def document_of_query(query: Query, templates: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON document of a request, without options that have their defaults.

    Raises:
        InputError: for options that a service does not offer.
    """
    document: dict[str, Any] = {"templates": list(templates)} if templates else {}
    for name, option in OPTIONS.items():
        value = _plain(getattr(query, name))
        if value == _plain(option.default) or value in ([], {}):
            continue
        if option.local:
            raise InputError(f"{name} cannot be asked of a service: use the index itself")
        document[name] = value
    if not isinstance(document.get("thresholds", ""), str):
        raise InputError("a service has no other thresholds than 'calibrated': use threshold")
    return document


def fits_a_form(document: Mapping[str, Any]) -> bool:
    """Return whether a document is small enough to be sent as a form."""
    counts = [len(value) for value in document.values() if isinstance(value, list | dict)]
    return sum(counts) <= _FORM_TEXTS


def form_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a form that stand for a document."""
    return {
        name: [f"{rank}={floor!r}" for rank, floor in value.items()]
        if isinstance(value, dict)
        else value
        for name, value in document.items()
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    # NumPy's numbers and arrays.
    return value.tolist() if hasattr(value, "tolist") else value
