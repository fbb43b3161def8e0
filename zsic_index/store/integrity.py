"""Consistency checks of the database."""

from __future__ import annotations

from sqlalchemy import func, select, text

from zsic_index.store.database import Database
from zsic_index.store.tables import LABEL, LABEL_INDEX, OTHER_NAME


def find_problems(database: Database) -> list[str]:
    """Check the database, in one transaction; return one line for each problem."""
    problems: list[str] = []
    with database.read() as connection:
        if connection.dialect.name == "sqlite":
            lines = connection.execute(text("PRAGMA integrity_check")).scalars().all()
            problems += [f"integrity_check: {line}" for line in lines if line != "ok"]
            broken = connection.execute(text("PRAGMA foreign_key_check")).all()
            problems += [f"{row[0]} row {row[1]} refers to a missing {row[2]}" for row in broken]
        lost = connection.execute(
            select(func.count())
            .select_from(LABEL)
            .where(LABEL.c.position.is_not(None), LABEL.c.embedding_id.is_(None))
        ).scalar_one()
        if lost:
            problems.append(f"{lost} labels have a position but no embedding")
        label_counts = connection.execute(
            select(LABEL_INDEX.c.name, LABEL_INDEX.c.labels, func.count(LABEL.c.position))
            .outerjoin(LABEL, LABEL.c.index_id == LABEL_INDEX.c.id)
            .group_by(LABEL_INDEX.c.id, LABEL_INDEX.c.name, LABEL_INDEX.c.labels)
        )
        problems += [
            f"index {name!r} says {recorded} labels but has {count}"
            for name, recorded, count in label_counts
            if recorded != count
        ]
        other_names = (
            select(func.count())
            .select_from(OTHER_NAME.join(LABEL, LABEL.c.id == OTHER_NAME.c.label_id))
            .where(LABEL.c.index_id == LABEL_INDEX.c.id)
            .scalar_subquery()
        )
        recorded_rows = func.coalesce(LABEL_INDEX.c.rows, LABEL_INDEX.c.labels)
        problems += [
            f"index {name!r} says {recorded} rows but has {count}"
            for name, recorded, count in connection.execute(
                select(LABEL_INDEX.c.name, recorded_rows, LABEL_INDEX.c.labels + other_names)
            )
            if recorded != count
        ]
    return problems
