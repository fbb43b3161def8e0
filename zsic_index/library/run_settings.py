"""What a run over photo libraries is asked, and how a later one can be asked the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zsic_index.calibration import require_part
from zsic_index.label_index import LabelIndex
from zsic_index.library.sidecars.paths import Style
from zsic_index.library.tag_rules import DEFAULT_THRESHOLD, TagRules, TagSettings
from zsic_index.querying.thresholds import Thresholds

Write = Literal["none", "sidecar"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run is asked.

    Attributes:
        roots: absolute folders, see ``walk.checked_roots``.
        exclude: patterns of names and paths that are left out.
        tags: how labels become tags.
        write: whether tags are written to sidecars.
        style: what new sidecars are called.
        both: whether both sidecars of a photo that has two are written.
        limit: photos that are embedded at most; None for all.
        retry: whether files that were refused, and have not changed, are tried again.
        thresholds: the probabilities from which on labels become tags; None for those that the
            index's calibration has.
        calibrated: whether probabilities are those of the index's calibration.
    """

    roots: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    tags: TagSettings = field(default_factory=TagSettings)
    write: Write = "none"
    style: Style = "full"
    both: bool = False
    limit: int | None = None
    retry: bool = False
    thresholds: Thresholds | None = field(default_factory=lambda: Thresholds(DEFAULT_THRESHOLD))
    calibrated: bool = False

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunSettings:
        """Read what a run in the store was asked; what it does not say is the default."""
        known = {name: record[name] for name in cls.__slots__ if name in record}
        known |= {name: tuple(known[name]) for name in ("roots", "exclude") if name in known}
        if "tags" in known:
            tags = known["tags"]
            lists = {name: tuple(tags[name]) for name in ("only", "exclude")}
            known["tags"] = TagSettings(**tags | lists)
        if known.get("thresholds") is not None:
            known["thresholds"] = Thresholds(**known["thresholds"])
        return cls(**known)

    def rules(self, index: LabelIndex, own: Mapping[int, float] | None = None) -> TagRules:
        """Return what tags photos get of an index, which answers as the run asks from now on.

        Args:
            index: the index.
            own: the labels' own thresholds, by id; by default those that the store has now, which
                verdicts have led to.

        Raises:
            InputError: when the index has no calibration, or one without thresholds, and needs it.
            LabelError: see ``TagRules``.
        """
        fitted = index.load_calibration() if self.calibrated else None
        index = index.with_calibration(fitted)
        thresholds: Any = self.thresholds
        if thresholds is None:
            thresholds = require_part(fitted and fitted.thresholds, "thresholds", "--precision")
        if own is None:
            own = index.store.verdicts.find_thresholds(index.info.index_id)
        return TagRules(index, self.tags, thresholds, own)
