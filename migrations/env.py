"""Alembic's environment: it writes the SQL of migrations, which the catalog executes in a transaction of its own."""

from __future__ import annotations

from alembic import context
from alembic.ddl.impl import DefaultImpl
from sqlalchemy.dialects import registry

from featurestore.catalog.schema import Base

registry.register("duckdb", "duckdb_engine", "Dialect")  # else SQLAlchemy searches all installed packages for it


class DuckDBImpl(DefaultImpl):
    """All that Alembic needs to know of DuckDB."""

    __dialect__ = "duckdb"
    transactional_ddl = True


context.configure(dialect_name="duckdb", target_metadata=Base.metadata)
context.run_migrations()
