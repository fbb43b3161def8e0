"""Version of the schema: checked whenever a store is opened, changed by Alembic only."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from zsic_index.errors import SchemaError
from zsic_index.store.database import Database

HEAD = "0008"
"""Revision that this program needs: the newest in ``migrations/versions``."""

_LOCK_KEY = 0x7A736963  # "zsic": key of the advisory lock that upgrades hold


def ensure_current(database: Database) -> None:
    """Create the tables in an empty database; check the version of any other.

    Raises:
        SchemaError: when the database is older (the message names the command that upgrades it),
            newer, or belongs to another program.
    """
    with database.read() as connection:
        version = _read_version(connection, database.location.name)
    if version is None:
        upgrade(database)
    elif version != HEAD:
        _check_known(version, database.location.name)
        raise SchemaError(
            f"store {database.location.name} has schema {version}, this program needs {HEAD}: "
            f"run 'zsic-index db upgrade --store {database.location.name}'"
        )


def upgrade(database: Database) -> tuple[str | None, str]:
    """Migrate a database to HEAD in one transaction; return the versions before and after.

    Several processes may call this at once: the first one migrates, the others wait for it.
    """
    # Imported here: Alembic is slow to import, and opening a store seldom needs it.
    from alembic import command
    from alembic.config import Config

    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        before = _read_version(connection, database.location.name)
        _check_known(before, database.location.name)
        if before != HEAD:
            config = Config()
            # Alembic reads options with configparser, in which % is special.
            config.set_main_option("script_location", str(find_migrations()).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, HEAD


def find_migrations() -> Path:
    """Return the folder of migrations: in the installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _read_version(connection: Connection, store_name: str) -> str | None:
    """Return the schema version; None for an empty database."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if "alembic_version" not in tables or "label_index" not in tables:
        raise SchemaError(
            f"store {store_name} is a database of another program (its tables: "
            f"{', '.join(sorted(tables)[:5])}); nothing was changed: choose another --store"
        )
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def _check_known(version: str | None, store_name: str) -> None:
    files = (find_migrations() / "versions").glob("[0-9]*.py")
    versions = {path.name.split("_")[0] for path in files}
    if version is not None and version not in versions:
        raise SchemaError(
            f"store {store_name} has schema {version}, which is newer than this program's {HEAD}; "
            "nothing was changed: install a newer zsic-index"
        )
