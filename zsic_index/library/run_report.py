"""The report of a run over photo libraries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from zsic_index.library.sidecars.writer import Written
from zsic_index.store.photo_records import StoredTag


@dataclass(frozen=True, slots=True)
class Change:
    """A photo whose tags a run changes."""

    photo: str
    added: tuple[StoredTag, ...]
    withdrawn: tuple[StoredTag, ...]


@dataclass(slots=True)
class RunReport:
    """What a run did; inputs = done + refused + skipped.

    Attributes:
        run_id: its id; empty for a dry run.
        resumed: whether it went on with one that was killed.
        counts: by name: ``inputs``; ``done``, of which ``embedded`` by the vision tower, ``reused``
            with an embedding that was there, ``unchanged``, or ``paired`` with another file;
            ``refused``; ``skipped``; ``tags_added``, ``tags_withdrawn``, ``photos_changed``;
            ``missing`` photos that are not there any more.
        sidecars: what was written.
        problems: lines about files and folders that were refused or skipped, the first of them.
        root_problems: lines about roots that look as if they were not mounted.
        seconds: how long it took.
    """

    run_id: str = ""
    resumed: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    sidecars: Written = field(default_factory=Written)
    problems: list[str] = field(default_factory=list)
    root_problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
