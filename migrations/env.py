"""Alembic's environment: migrations run on the connection that the catalog opened, in its transaction."""

from __future__ import annotations

from alembic import context
from alembic.ddl.impl import DefaultImpl

from featurestore.catalog.schema import Base


class DuckDBImpl(DefaultImpl):
    """All that Alembic needs to know of DuckDB."""

    __dialect__ = "duckdb"
    transactional_ddl = True


context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
