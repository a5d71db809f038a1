"""The catalog: opening it for one short transaction at a time, its schema, and what is recorded in it.

DuckDB lets one process in at a time, so every transaction opens the file, commits and closes it, queued by an
exclusive lock on a file beside it. That is how ``status`` and ``sql`` work while a ten-hour run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from featurestore.errors import CorruptFile, FormatError, StoreBusy
from featurestore.storage import CATALOG, Root, room_on_disk
from featurestore.tables import Base, Partition, Result, Run

HEAD = "0001"  # the newest revision in migrations/versions; a test compares
LOCK_SECONDS = 120.0


class Catalog:
    """``catalog.duckdb`` of one store."""

    def __init__(self, root: Root) -> None:
        """Take the catalog below ``root``; nothing is opened yet."""
        self._root = root
        self.path = root.local(CATALOG)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open the catalog for writing; commit at the end, roll back on an exception.

        Raises:
            StoreBusy: others kept the catalog busy for two minutes.
            NotEnoughSpace: the disk is full; the transaction did not happen.
        """
        with self._lock(), room_on_disk(CATALOG), self._connect(read_only=False) as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open the catalog for reading, for a short while.

        Raises:
            StoreBusy: others kept the catalog busy for two minutes.
            CorruptFile: it is missing or not a DuckDB file.
        """
        if not self.path.is_file():
            raise CorruptFile(f"{self.path} is missing; put back a copy of it")
        with self._lock(), self._connect(read_only=True) as connection:
            yield connection

    @contextmanager
    def _connect(self, *, read_only: bool) -> Iterator[sa.Connection]:
        options = {"config": {"threads": 1}, "read_only": read_only} if not read_only else {"read_only": True}
        engine = sa.create_engine(f"duckdb:///{self.path}", poolclass=NullPool, connect_args=options)
        try:
            connection = engine.connect()
        except DBAPIError as error:
            raise _unopenable(self.path, error) from error
        with connection:
            yield connection

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if not self._root.writable:  # nobody can be writing here, and no lock can be taken
            yield
            return
        lock = filelock.FileLock(self._root.local("catalog.lock"))
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except filelock.Timeout as error:
            raise StoreBusy(
                f"the catalog of {self._root.path} was in use by other processes for {LOCK_SECONDS:.0f} seconds; "
                "wait for them to end, then run the same command again"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def migrate(self) -> None:
        """Make the schema, or bring it up to date. Only for whoever holds the store's run lock.

        Raises:
            FormatError: the catalog was made by a newer version.
        """
        with self.transaction() as connection:
            if (found := revision(connection)) == HEAD:
                return
            if found is not None and found > HEAD:
                raise FormatError(
                    f"the catalog is of revision {found}, and this version of featurestore knows {HEAD}; "
                    "upgrade featurestore"
                )
            upgrade(connection)


def _unopenable(path: Path, error: DBAPIError) -> Exception:
    reason = str(error.orig).strip().splitlines()[0]
    if "lock" in reason.lower():
        return StoreBusy(f"{path} is open in a program that is not featurestore ({reason}); close it there")
    return CorruptFile(f"{path} can't be opened: {reason}; put back a copy of it")


def revision(connection: sa.Connection) -> str | None:
    """Return the schema's revision, None for an empty catalog."""
    tables = connection.execute(sa.text("SELECT table_name FROM duckdb_tables()")).scalars().all()
    if "alembic_version" not in tables:
        return None
    return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().one())


def upgrade(connection: sa.Connection, to: str = "head") -> None:
    """Run the migrations on an open connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def migrations_folder() -> Path:
    """Return the folder of migrations: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "migrations"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "migrations"


def arrow(connection: sa.Connection, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
    """Return a query's result as an Arrow table: 300 times faster than rows through SQLAlchemy."""
    raw: Any = connection.connection.dbapi_connection
    return raw.sql(query, params=dict(parameters or {})).to_arrow_table()


def insert_arrow(connection: sa.Connection, table: str, rows: pa.Table) -> None:
    """Append an Arrow table to a table of the catalog, by column name."""
    raw: Any = connection.connection.dbapi_connection
    raw.register("arrow_rows", rows)
    try:
        connection.execute(sa.text(f'INSERT INTO "{table}" BY NAME SELECT * FROM arrow_rows'))
    finally:
        raw.unregister("arrow_rows")


def upsert(connection: sa.Connection, model: type[Base], values: Mapping[str, Any]) -> None:
    """Insert a row, or update the one of the same key: a killed transaction may have been committed unheard."""
    statement = insert(model).values(**values)
    keys = [column.name for column in sa.inspect(model).primary_key]
    rest = {name: value for name, value in values.items() if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))


def record_partition(connection: sa.Connection, values: Mapping[str, Any], results: pa.Table) -> str | None:
    """Record a committed file and what it says of each image; return the path of the file it replaces, if any.

    Args:
        connection: of a transaction.
        values: a row of `tables.Partition`.
        results: ``chunk_id, image_id, status, error, n_descriptors, pixels`` of each image.
    """
    key = {name: values[name] for name in ("stage", "variant", "chunk_id")}
    old = connection.execute(sa.select(Partition.path).filter_by(**key)).scalars().all()
    if old:
        connection.execute(sa.delete(Result).filter_by(**key))
    upsert(connection, Partition, values)
    constant = {name: pa.array([value] * len(results)) for name, value in key.items()}
    insert_arrow(
        connection,
        Result.__tablename__,
        pa.table({**dict(zip(results.column_names, results.columns, strict=True)), **constant}),
    )
    return str(old[0]) if old and old[0] != values["path"] else None


def update_run(connection: sa.Connection, run_id: str, **values: Any) -> None:
    """Change the record of a run."""
    connection.execute(sa.update(Run).where(Run.run_id == run_id).values(**values))
