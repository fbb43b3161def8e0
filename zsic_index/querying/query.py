"""A query about images, shared by the command line, the service and its client.

Importing this module loads nothing heavy; ``compiled`` runs a query against an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zsic_index.errors import InputError, LabelError
from zsic_index.querying.options import OptionGroup, option, read_options
from zsic_index.querying.thresholds import Thresholds
from zsic_index.records import DEFAULT_TOP_K

_LABELS, _DECISIONS, _OUTPUT = OptionGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query about each of any number of images.

    The options of ``zsic-index query``, the OpenAPI document and the table of options in the
    documentation are derived from these fields, their bounds and the descriptions below.

    Attributes:
        labels: choose only among these labels of the index; probabilities are over them alone.
        encode_missing: encode chosen labels that the index does not have, and keep their
            embeddings in the store.
        over_index: also give each probability over the whole index.
        under: choose only among the labels below this node of the taxonomy.
        rank: roll up to a rank of the taxonomy, or to ``depth 2`` and so on.
        deepest: give the deepest node of the taxonomy whose probability reaches this floor.
        floors: floors for nodes of single ranks, where they differ from ``deepest``.
        independent: for sigmoid models: give a node the probability of at least one of its labels,
            as if they were independent, instead of the largest.
        threshold: leave out labels that are less probable.
        thresholds: thresholds of single labels or ranks; ``calibrated`` for those that calibrate
            has fitted.
        sets: give all labels of the prediction set that calibrate --coverage has fitted.
        none_below: answer ``none of these`` if the best label is less probable.
        none_within: answer ``none of these`` if the best label is ahead of the second by less.
        negatives: names of things that are no label of the index; answer ``none of these`` if they
            have more than half of the probability.
        calibrated: use the calibration that was fitted for the index.
        top_k: maximum number of labels or nodes per image.
        lang: give names in this language, where there are any.
    """

    labels: Sequence[str] = option((), _LABELS, "--label", metavar="LABEL")
    encode_missing: bool = option(False, _LABELS, "--encode-missing", local=True)
    over_index: bool = option(False, _LABELS, "--over-index")
    under: str | None = option(None, _LABELS, "--under", metavar="NODE")
    rank: str | None = option(None, _LABELS, "--rank", metavar="RANK")
    deepest: float | None = option(
        None, _LABELS, "--deepest", metavar="FLOOR", minimum=0, maximum=1, exclude_minimum=True
    )
    floors: Mapping[str, float] | None = option(None, _LABELS, "--floor", metavar="RANK=FLOOR")
    independent: bool = option(False, _LABELS, "--independent")
    threshold: float | None = option(
        None, _DECISIONS, "--threshold", metavar="PROBABILITY", minimum=0, maximum=1
    )
    thresholds: Thresholds | Literal["calibrated"] | None = option(
        None,
        _DECISIONS,
        "--thresholds",
        metavar="FILE",
        cli_help="FILE is a .csv, .tsv or .json file of label or rank, and threshold.",
    )
    sets: bool = option(False, _DECISIONS, "--sets")
    none_below: float | None = option(
        None, _DECISIONS, "--none-below", metavar="PROBABILITY", minimum=0, maximum=1
    )
    none_within: float | None = option(
        None, _DECISIONS, "--none-within", metavar="MARGIN", minimum=0, maximum=1
    )
    negatives: Sequence[str] = option((), _DECISIONS, "--negative", metavar="NAME", local=True)
    calibrated: bool = option(False, _DECISIONS, "--calibrated")
    top_k: int = option(DEFAULT_TOP_K, _OUTPUT, "-k", "--top-k", metavar="K", minimum=1)
    lang: str | None = option(None, _OUTPUT, "--lang", metavar="TAG")

    def __post_init__(self) -> None:
        """Check bounds and combinations.

        Raises:
            LabelError: if one string is given instead of a list of strings.
            InputError: for a number out of bounds, or options that exclude each other.
        """
        for name in ("labels", "negatives"):
            if isinstance(given := getattr(self, name), str):
                raise LabelError(f"{name}={given!r}: give a list of names, not one string")
        if sum(choice is not None for choice in (self.under, self.rank, self.deepest)) > 1:
            raise InputError("under, rank and deepest exclude each other: give one of them")
        if self.of_nodes and (self.labels or self.over_index):
            raise InputError("rank and deepest are over the whole index: leave labels out")
        if self.floors and self.deepest is None:
            raise InputError("floors go with deepest: give that as well")
        if self.independent and not self.of_nodes:
            raise InputError("independent is about nodes: give rank or deepest as well")
        if self.threshold is not None and self.thresholds is not None:
            raise InputError("threshold and thresholds exclude each other: give one of them")
        self._check_bounds()
        if self.decides and (self.of_nodes or self.labels or self.under or self.over_index):
            raise InputError(
                "thresholds, sets and 'none of these' are about all labels: leave labels, under, "
                "rank, deepest and over_index out"
            )

    @property
    def of_nodes(self) -> bool:
        """True if predictions are nodes of the taxonomy instead of labels."""
        return self.rank is not None or self.deepest is not None

    @property
    def decides(self) -> bool:
        """True if predictions have to be accepted, rather than be the most probable ones."""
        limits = (self.threshold, self.thresholds, self.none_below, self.none_within)
        return any(limit is not None for limit in limits) or self.sets or bool(self.negatives)

    def _check_bounds(self) -> None:
        for name, declared in OPTIONS.items():
            if (value := getattr(self, name)) is not None:
                declared.check(value)
        for rank, floor in (self.floors or {}).items():
            if not 0 <= floor <= 1:
                raise InputError(f"the floor of {rank!r} is {floor}; it must be from 0 to 1")


OPTIONS = read_options(Query)
"""Declarations of the options by name."""


def parse_floor(text: str) -> tuple[str, float]:
    """Return the rank and the floor of ``RANK=FLOOR``, as the command line and forms write them.

    Raises:
        InputError: for any other text.
    """
    rank, _, number = text.rpartition("=")
    try:
        floor = float(number)
    except ValueError:
        rank = ""
    if not rank:
        raise InputError(f"{text[:100]!r}: give RANK=FLOOR, such as species=0.9")
    return rank, floor
