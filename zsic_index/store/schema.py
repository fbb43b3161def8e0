"""The schema's version: checked at every opening, changed by Alembic alone."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from zsic_index.errors import SchemaError
from zsic_index.store.database import Database

HEAD = "0007"
"""The revision this program works with: the newest in ``migrations/versions``."""

_LOCK_KEY = 0x7A736963  # "zsic": names the advisory lock that upgrades hold


def ensure(database: Database) -> None:
    """Create the tables in an empty database; refuse one of another version.

    Raises:
        SchemaError: when the database is older (the message names the command that upgrades it),
            newer, or some other program's.
    """
    with database.read() as connection:
        version = _version(connection, database.location.shown)
    if version is None:
        upgrade(database)
    elif version != HEAD:
        _refuse_unknown(version, database.location.shown)
        raise SchemaError(
            f"store {database.location.shown} has schema {version}, this program needs {HEAD}: "
            f"run 'zsic-index db upgrade --store {database.location.shown}'"
        )


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the database to HEAD in one transaction; return the versions before and after.

    Several processes may call this at once: the first does it, the others find it done.
    """
    # Alembic takes a while to import, and most openings need no migration.
    from alembic import command
    from alembic.config import Config

    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        before = _version(connection, database.location.shown)
        _refuse_unknown(before, database.location.shown)
        if before != HEAD:
            config = Config()
            # Alembic reads options through configparser, to which % is special.
            config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, HEAD


def migrations() -> Path:
    """Return Alembic's folder: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def _version(connection: Connection, shown: str) -> str | None:
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if "alembic_version" not in tables or "label_index" not in tables:
        raise SchemaError(
            f"store {shown} is a database of another program (its tables: "
            f"{', '.join(sorted(tables)[:5])}); nothing was changed: choose another --store"
        )
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def _refuse_unknown(version: str | None, shown: str) -> None:
    known = {path.name.split("_")[0] for path in (migrations() / "versions").glob("[0-9]*.py")}
    if version is not None and version not in known:
        raise SchemaError(
            f"store {shown} has schema {version}, which is newer than this program's {HEAD}; "
            "nothing was changed: install a newer zsic-index"
        )
