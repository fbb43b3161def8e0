"""What can be asked about images: one record for the command line, the service and its client.

Nothing heavy is imported here: ``compiled`` makes a query executable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zsic_index.errors import InputError, LabelError
from zsic_index.records import DEFAULT_TOP_K

if TYPE_CHECKING:
    from zsic_index.querying.thresholds import Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked about each of any number of images.

    Attributes:
        top_k: k, at least 1: labels or nodes of an answer, at most.
        labels: only among these of the index; the probabilities are over them.
        encode_missing: encode those of them that the index does not have.
        over_index: also give each probability over the whole index.
        under: only among the labels below a node of the taxonomy.
        rank: roll up to a rank of the taxonomy.
        deepest: the deepest node whose probability reaches this, above 0 and up to 1.
        floors: other floors than ``deepest``, for nodes of some ranks.
        independent: sigmoid models: a node's probability is that of at least one of its labels.
        threshold: leave out labels that are less probable.
        thresholds: the same for each label or rank; ``calibrated`` for those that were fitted.
        sets: all labels of the prediction set that was fitted.
        none_below: "none of these" where the best label is less probable.
        none_within: "none of these" where the best label is so little ahead of the second.
        negatives: names of what is none of the labels.
        calibrated: answer with what was fitted for the index.
        lang: give names in this language, where there are any.
    """

    top_k: int = DEFAULT_TOP_K
    labels: Sequence[str] = ()
    encode_missing: bool = False
    over_index: bool = False
    under: str | None = None
    rank: str | None = None
    deepest: float | None = None
    floors: Mapping[str, float] | None = None
    independent: bool = False
    threshold: float | None = None
    thresholds: Thresholds | Literal["calibrated"] | None = None
    sets: bool = False
    none_below: float | None = None
    none_within: float | None = None
    negatives: Sequence[str] = ()
    calibrated: bool = False
    lang: str | None = None

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            LabelError: for one string where there should be a list of them.
            InputError: when two things were asked for that exclude each other.
        """
        for name in ("labels", "negatives"):
            if isinstance(given := getattr(self, name), str):
                raise LabelError(f"{name}={given!r}: give a list of names, not one string")
        if sum(one is not None for one in (self.under, self.rank, self.deepest)) > 1:
            raise InputError("under, rank and deepest exclude each other: give one of them")
        if self.of_nodes and (self.labels or self.over_index):
            raise InputError("rank and deepest are over the whole index: leave labels out")
        if self.floors and self.deepest is None:
            raise InputError("floors go with deepest: give that as well")
        if self.independent and not self.of_nodes:
            raise InputError("independent is about nodes: give rank or deepest as well")
        if self.threshold is not None and self.thresholds is not None:
            raise InputError("threshold and thresholds exclude each other: give one of them")
        for name, value in self._probabilities().items():
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name} is {value}; it must be from 0 to 1")
        if self.decides and (self.of_nodes or self.labels or self.under or self.over_index):
            raise InputError(
                "thresholds, sets and 'none of these' are about all labels: leave labels, under, "
                "rank, deepest and over_index out"
            )

    @property
    def of_nodes(self) -> bool:
        """Whether answers are nodes of the taxonomy, not labels."""
        return self.rank is not None or self.deepest is not None

    @property
    def decides(self) -> bool:
        """Whether it is asked what is accepted, not only what is most probable."""
        given = (self.threshold, self.thresholds, self.none_below, self.none_within)
        return any(one is not None for one in given) or self.sets or bool(self.negatives)

    def _probabilities(self) -> dict[str, float | None]:
        names = ("deepest", "threshold", "none_below", "none_within")
        floors = {f"the floor of {rank!r}": value for rank, value in (self.floors or {}).items()}
        return {name: getattr(self, name) for name in names} | floors
