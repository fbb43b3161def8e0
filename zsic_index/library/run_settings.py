"""Settings of a run over photo libraries, as the store keeps them for later runs."""

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
    """Settings of a run.

    Attributes:
        roots: absolute folders; see ``walk.checked_roots``.
        exclude: patterns of names and paths to skip; see ``walk.walk``.
        tags: settings of the tags that labels become.
        write: where tags are written in addition to the store.
        style: name of new sidecars; see ``sidecars.paths.choose``.
        both: whether both sidecars of a photo that has two are written.
        limit: largest number of photos to embed; None for all.
        retry: whether unchanged files that were refused before are tried again.
        thresholds: smallest probabilities that make labels tags; None for those of the index's
            calibration.
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
        """Return the settings of a run in the store; missing ones have their defaults."""
        fields = {name: record[name] for name in cls.__slots__ if name in record}
        fields |= {name: tuple(fields[name]) for name in ("roots", "exclude") if name in fields}
        if "tags" in fields:
            tags = fields["tags"]
            lists = {name: tuple(tags[name]) for name in ("only", "exclude")}
            fields["tags"] = TagSettings(**tags | lists)
        if fields.get("thresholds") is not None:
            fields["thresholds"] = Thresholds(**fields["thresholds"])
        return cls(**fields)

    def rules(self, index: LabelIndex, own: Mapping[int, float] | None = None) -> TagRules:
        """Return the rules by which an index gives tags in a run with these settings.

        Args:
            index: the index, which is not changed: the rules have a variant of it with the
                calibration that the settings ask for.
            own: labels' own thresholds, by label id; by default those in the store, which the
                user has set or fitted.

        Raises:
            InputError: when the settings need a calibration, or its thresholds, and the index has
                none.
            LabelError: see ``TagRules``.
        """
        calibration = index.load_calibration() if self.calibrated else None
        thresholds: Any = self.thresholds
        if thresholds is None:
            fitted = calibration and calibration.thresholds
            thresholds = require_part(fitted, "thresholds", "--precision")
        if own is None:
            own = index.store.verdicts.find_thresholds(index.info.index_id)
        return TagRules(index.with_calibration(calibration), self.tags, thresholds, own)
