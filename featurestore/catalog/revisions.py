"""Revisions of the catalog's schema: which one a catalog has, and the migrations that lead to the newest."""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa

from featurestore.errors import FormatError

LOG = logging.getLogger("featurestore.catalog")
HEAD = "0003"  # the newest revision in migrations/versions; a test compares


def refuse_newer(found: str | None) -> None:
    """Refuse a catalog of a newer revision.

    Raises:
        FormatError: its revision is newer than `HEAD`.
    """
    if found is not None and found > HEAD:
        raise FormatError(
            f"the catalog is of revision {found}, and this version of featurestore knows {HEAD}; upgrade featurestore"
        )


def columns_of(connection: sa.Connection) -> set[str]:
    """Return the catalog's columns with their tables and types."""
    query = "SELECT table_name || '.' || column_name || ' of ' || data_type FROM duckdb_columns() WHERE NOT internal"
    return set(connection.execute(sa.text(query)).scalars().all())


def revision(connection: sa.Connection) -> str | None:
    """Return the schema's revision, None for an empty catalog."""
    tables = connection.execute(sa.text("SELECT table_name FROM duckdb_tables()")).scalars().all()
    if "alembic_version" not in tables:
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().one_or_none()
    return None if found is None else str(found)


def upgrade(connection: sa.Connection, to: str = "head") -> None:
    """Run the migrations on an open connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    LOG.info("migrating the catalog to revision %s", HEAD if to == "head" else to)
    command.upgrade(config, to)


def migrations_folder() -> Path:
    """Return the folder of migrations: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
