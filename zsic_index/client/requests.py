"""What is asked, as requests have it: keyword arguments, a query, a document or a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from zsic_index.errors import InputError, LabelError
from zsic_index.querying.query import Query

_FORM_TEXTS = 500
"""Labels and other lists of a form: a service takes so many for sure."""


class _OfAll(TypedDict, total=False):
    """What can be asked about images, whatever answers are.

    Attributes:
        top_k: k, at least 1: labels or nodes of an answer, at most; 5 by default.
        calibrated: answer with what was fitted for the index.
        lang: give names in this language, where there are any.
        templates: answer under these templates, or names of template sets, instead of the index's
            own. The first time takes as long as encoding its labels.
    """

    top_k: int
    calibrated: bool
    lang: str | None
    templates: Sequence[str] | None


class _OfLabels(TypedDict, total=False):
    """What can be asked where answers are labels.

    Attributes:
        labels: only among these of the index; the probabilities are over them.
        over_index: also give each probability over the whole index.
        under: only among the labels below a node of the taxonomy.
        threshold: leave out labels that are less probable.
        thresholds: the same for each label, as they were fitted.
        sets: all labels of the prediction set that was fitted.
        none_below: "none of these" where the best label is less probable.
        none_within: "none of these" where the best label is so little ahead of the second.
    """

    labels: Sequence[str] | None
    over_index: bool
    under: str | None
    threshold: float | None
    thresholds: Literal["calibrated"] | None
    sets: bool
    none_below: float | None
    none_within: float | None


class _OfNodes(TypedDict, total=False):
    """What can be asked where answers are nodes of the taxonomy: rank or deepest is.

    Attributes:
        rank: roll up to a rank of the taxonomy.
        deepest: the deepest node whose probability reaches this, above 0 and up to 1.
        floors: other floors than ``deepest``, for nodes of some ranks.
        independent: sigmoid models: a node's probability is that of at least one of its labels.
    """

    rank: str | None
    deepest: float | None
    floors: Mapping[str, float] | None
    independent: bool


class LabelsAsked(_OfAll, _OfLabels, total=False):
    """Keyword arguments for answers that are labels."""


class NodesAsked(_OfAll, _OfNodes, total=False):
    """Keyword arguments for answers that are nodes."""


class Asked(_OfAll, _OfLabels, _OfNodes, total=False):
    """All keyword arguments."""


def document_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request's document says of what is asked with keyword arguments.

    Raises:
        InputError: for what no service can be asked, or excludes each other.
        TypeError: for what is no such argument.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    templates = given.pop("templates", ())
    # All of the index would be another answer than the one that an empty list stands for.
    if not len(given.get("labels", "all")):
        raise LabelError("labels is empty: give at least one, or None for all")
    return document_of_query(Query(**given), templates)


def document_of_query(query: Query, templates: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a request's document says of a query; see ``document_of``."""
    usual = Query()
    found: dict[str, Any] = {"templates": list(templates)} if templates else {}
    for name in Query.__dataclass_fields__:
        value = _plain(getattr(query, name))
        if value == _plain(getattr(usual, name)) or value in ([], {}):
            continue
        if name not in Asked.__optional_keys__:
            raise InputError(f"{name} cannot be asked of a service: use the index where it lies")
        found[name] = value
    if not isinstance(found.get("thresholds", ""), str):
        raise InputError("a service has no other thresholds than 'calibrated': use threshold")
    return found


def fits_a_form(document: Mapping[str, Any]) -> bool:
    """Return whether a form may have so many texts."""
    counts = [len(one) for one in document.values() if isinstance(one, list | dict)]
    return sum(counts) <= _FORM_TEXTS


def form_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document's values as the fields of a form."""
    return {
        name: [f"{key}={one!r}" for key, one in value.items()] if isinstance(value, dict) else value
        for name, value in document.items()
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    # NumPy's numbers and arrays are none to JSON.
    return value.tolist() if hasattr(value, "tolist") else value
