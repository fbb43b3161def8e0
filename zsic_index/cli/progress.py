"""The progress of a command: a bar on a terminal, a line every 30 seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

SECONDS_PER_LINE = 30.0


class Progress:
    """A progress display on standard error, called with the number done and the total."""

    def __init__(
        self,
        *,
        show: bool,
        what: str = "labels",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show
        self._what = what
        self._clock = clock
        self._started = self._last_line = clock()
        self._bar: Bar | None = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int, remark: str = "") -> None:
        """Show that ``done`` of ``total`` are done, with a remark behind the pace."""
        if not self._show:
            return
        if sys.stderr.isatty():
            self._draw(done, total, remark)
        elif self._clock() - self._last_line >= SECONDS_PER_LINE:
            self._last_line = self._clock()
            click.echo(
                f"{done:,} of {total:,} {self._what}, {self._status(done, total, remark)}", err=True
            )

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _draw(self, done: int, total: int, remark: str) -> None:
        if self._bar is None:
            # Importing rich takes a while; a log needs none of it.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (
                TextColumn(self._what),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=total, status="")
        status = self._status(done, total, remark)
        self._bar.update(self._task, completed=done, total=total, status=status)

    def _status(self, done: int, total: int, remark: str) -> str:
        """Return the pace, the time left and the remark."""
        per_second = done / max(self._clock() - self._started, 1e-9)
        left = round((total - done) / max(per_second, 1e-9))
        minutes, seconds = divmod(left, 60)
        hours, minutes = divmod(minutes, 60)
        pace = f"{per_second:,.0f} {self._what}/s, {hours}:{minutes:02}:{seconds:02} left"
        return f"{pace}, {remark}" if remark else pace
