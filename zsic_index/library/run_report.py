"""The report of a run over photo libraries."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from zsic_index.library.sidecars.writer import WriteReport
from zsic_index.store.photo_records import StoredTag

_MAX_PROBLEMS = 1_000
"""Largest number of lines about single files in a report; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class PhotoChange:
    """Tags that a run adds to a photo and withdraws from it.

    Attributes:
        photo: its path.
        added: tags that it gets.
        withdrawn: tags that it loses.
    """

    photo: str
    added: tuple[StoredTag, ...]
    withdrawn: tuple[StoredTag, ...]


@dataclass(slots=True)
class RunReport:
    """Outcome of a run; inputs = done + refused + skipped. Counting is safe in several threads.

    Attributes:
        run_id: the run's id; empty for a dry run.
        resumed: whether the run continued one that was killed.
        counts: numbers by name: ``inputs``; ``done``, of which ``embedded`` by the vision tower,
            ``reused`` with a stored embedding, ``unchanged``, or ``paired`` with another file;
            ``refused``; ``skipped``; ``tags_added``, ``tags_withdrawn``, ``photos_changed``;
            ``missing`` photos that no longer exist; ``problems``.
        sidecars: outcome of writing sidecars.
        problems: lines about refused or skipped files and unreadable folders; the first 1,000.
        root_problems: lines about roots that seem not to be mounted.
        seconds: duration of the run.
    """

    run_id: str = ""
    resumed: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    sidecars: WriteReport = field(default_factory=WriteReport)
    problems: list[str] = field(default_factory=list)
    root_problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, number: int, outcome: str) -> None:
        """Count files with an outcome, such as ``embedded`` or ``refused``."""
        with self._lock:
            self.counts["inputs"] += number
            self.counts[outcome] += number
            if outcome not in ("refused", "skipped"):
                self.counts["done"] += number

    def refuse(self, path: str, reason: str, files: int) -> None:
        """Count a refused photo with the files that share its tags, and note the reason."""
        self.add_problem(reason if reason.startswith(path) else f"{path}: {reason}")
        self.count(files, "refused")

    def skip(self, path: str, reason: str, files: int = 1) -> None:
        """Count a skipped photo with the files that share its tags, and note the reason."""
        self.add_problem(f"{path}: skipped: {reason}")
        self.count(files, "skipped")

    def add_problem(self, line: str) -> None:
        """Note a problem with a file or folder."""
        with self._lock:
            self.counts["problems"] += 1
            if len(self.problems) < _MAX_PROBLEMS:
                self.problems.append(" ".join(line.split()))

    def count_change(self, change: PhotoChange) -> None:
        """Count a photo whose tags change."""
        with self._lock:
            self.counts["photos_changed"] += 1
            self.counts["tags_added"] += len(change.added)
            self.counts["tags_withdrawn"] += len(change.withdrawn)
