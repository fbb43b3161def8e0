"""Runs of ``tag``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, select, update

from zsic_index.store.database import Database
from zsic_index.store.photo_records import Run
from zsic_index.store.statements import upsert
from zsic_index.store.tables import TAG_RUN


class RunStore:
    """Runs, by id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Run]:
        """Return every run, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(TAG_RUN).order_by(TAG_RUN.c.started_at, TAG_RUN.c.id)
            ).all()
        return [_load_run(row) for row in rows]

    def start(self, run: Run) -> Run:
        """Return the unfinished run with the same digest to resume, else add ``run``."""
        with self._database.write() as connection:
            row = connection.execute(
                select(TAG_RUN).where(TAG_RUN.c.digest == run.digest, TAG_RUN.c.state == "running")
            ).first()
            if row is not None:
                return _load_run(row)
            upsert(connection, TAG_RUN, [_dump_run(run)])
        return run

    def finish(self, run_id: str, state: str, counts: Mapping[str, int]) -> None:
        """Save the final state and counts of a run."""
        with self._database.write() as connection:
            connection.execute(
                update(TAG_RUN)
                .where(TAG_RUN.c.id == run_id)
                .values(state=state, counts=json.dumps(counts), finished_at=time.time())
            )


def _load_run(row: Row[Any]) -> Run:
    return Run(
        row.id,
        row.digest,
        row.index_name,
        row.model_id,
        row.taxonomy,
        json.loads(row.settings),
        row.state,
        json.loads(row.counts),
        row.started_at,
        row.finished_at,
    )


def _dump_run(run: Run) -> dict[str, Any]:
    return {
        "id": run.run_id,
        "digest": run.digest,
        "index_name": run.index_name,
        "model_id": run.model_id,
        "taxonomy": run.taxonomy,
        "settings": json.dumps(run.settings, ensure_ascii=False),
        "state": run.state,
        "counts": json.dumps(run.counts),
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }
