"""Revisions of the catalog's schema: which one a catalog has, and the migrations that lead to the newest."""

from __future__ import annotations

import atexit
import functools
import logging
import typing
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from featurestore.errors import FormatError

LOG = logging.getLogger("featurestore.catalog")
HEAD = "0004"  # the newest revision in migrations/versions; a test compares


def refuse_newer(found: str | None) -> None:
    """Refuse a catalog of a newer revision.

    Raises:
        FormatError: its revision is newer than `HEAD`.
    """
    if found is not None and found > HEAD:
        raise FormatError(
            f"the catalog is of revision {found}, and this version of featurestore knows {HEAD}; upgrade featurestore"
        )


def columns_of(connection: DuckDBPyConnection) -> set[str]:
    """Return the catalog's columns with their tables and types."""
    query = "SELECT table_name || '.' || column_name || ' of ' || data_type FROM duckdb_columns() WHERE NOT internal"
    return {text for (text,) in connection.execute(query).fetchall()}


def revision(connection: DuckDBPyConnection) -> str | None:
    """Return the schema's revision, None for an empty catalog. After None a transaction accepts no more statements."""
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except duckdb.CatalogException:  # to list all tables first would take three times as long
        return None
    return str(found[0][0]) if found else None


def upgrade(connection: DuckDBPyConnection, found: str | None, to: str = "head") -> None:
    """Migrate a catalog of revision ``found``, in the transaction of the connection."""
    LOG.info("migrating the catalog to revision %s", HEAD if to == "head" else to)
    written = new_catalog()
    if found is None and to == "head" and written.is_file():  # to import and run Alembic takes 0.6 s of CPU time
        connection.execute(written.read_text(encoding="utf-8"))
        return
    from alembic import command

    connection.execute(migration_sql(command.upgrade, f"{found or 'base'}:{to}"))


def new_catalog() -> Path:
    """Return the file with the SQL of all migrations, as Alembic writes it: `make migrations`, and a test compares."""
    return migrations_folder() / f"{HEAD}.sql"


@functools.cache
def migration_sql(direction: Callable[..., None], span: str) -> str:
    """Return the SQL of migrations, written by Alembic from the operations in ``migrations/versions``.

    Args:
        direction: Alembic's command ``upgrade`` or ``downgrade``.
        span: the revisions, like ``"0001:head"``.
    """
    from alembic.config import Config

    atexit.register(forget_overloads)
    script = StringIO()
    config = Config(output_buffer=script)
    config.set_main_option("script_location", str(migrations_folder()))
    direction(config, span, sql=True)
    return script.getvalue()


def migrations_folder() -> Path:
    """Return the folder of migrations: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def forget_overloads() -> None:
    """Keep DuckDB quiet at exit, where it would print "nanobind: leaked 27 instances!" and a page more (duckdb 2.0.0).

    DuckDB keeps a reference to the function with which it reads Arrow. This keeps the module typing alive, which keeps
    SQLAlchemy's overloads: in its registry, and where ``dataclass_transform`` marks the function that replaces every
    overload. From there references lead to duckdb-engine, and to DuckDB's own types, which then outlive the
    interpreter. No code needs overloads at exit.
    """
    stands_for_all = typing.overload(forget_overloads)
    typing.clear_overloads()
    vars(stands_for_all).clear()
