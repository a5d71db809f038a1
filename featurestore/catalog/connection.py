"""A long-lived in-memory DuckDB that attaches the catalog file for one transaction at a time.

Making an instance takes 20 ms, most of it for DuckDB's own functions; attaching a file to an existing one takes 1 ms.
"""

from __future__ import annotations

import typing
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.pool import NullPool

LITTLE = "1GB"  # memory limit for checks: DuckDB reads any number of blocks within it
ATTACHED = "attached"  # the schema name of the attached file
Fingerprint = tuple[int, str | None]  # the number of rows, and the sum of their hashes, in any order
registry.register("duckdb", "duckdb_engine", "Dialect")  # else SQLAlchemy searches all installed packages for it


class Instance:
    """A DuckDB instance, in memory or of a file. It stays open until `close`."""

    def __init__(self, path: Path | None = None, *, threads: int | None = None, memory: str | None = None) -> None:
        """Open it in memory, or on the file ``path``.

        Args:
            path: of a file, new or not.
            threads: None is one for every core.
            memory: for blocks of the file, like ``"1GB"``; None is most of what the machine has.
        """
        database = str(path) if path is not None else f":memory:{uuid.uuid4().hex}"
        limits = {"threads": threads, "memory_limit": memory}
        options = {"config": {name: value for name, value in limits.items() if value is not None}}
        url = sa.URL.create("duckdb", database=database)  # not as a string, which a "?" in the path would cut
        self._engine = sa.create_engine(url, poolclass=NullPool, connect_args=options)
        # Other connections of this process to the same name share this instance.
        self._anchor = self._engine.connect()
        # Closed at the latest when this object is collected, or when the interpreter exits.
        self._finalizer = weakref.finalize(self, _close_instance, self._anchor, self._engine)

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._finalizer.alive

    def close(self) -> None:
        """Close the instance; an in-memory database is lost."""
        self._finalizer()

    def connect(self) -> sa.Connection:
        """Open a connection to it."""
        return self._engine.connect()

    def execute(self, statement: str) -> None:
        """Run a statement outside of a transaction."""
        raw_connection(self._anchor).execute(statement)

    def attach(self, path: Path, name: str = ATTACHED, *, read_only: bool) -> None:
        """Attach the database file ``path``; a missing file is created unless ``read_only``.

        Raises:
            duckdb.Error: it can't be opened.
        """
        attach(raw_connection(self._anchor), path, name, read_only=read_only)

    @contextmanager
    def attached(self) -> Iterator[sa.Connection]:
        """Open a connection to the file attached as `ATTACHED`, and detach it at the end.

        After an exception the whole instance is closed, since DuckDB may accept no more statements.
        """
        try:
            with self.connect() as connection:
                raw_connection(connection).execute(f"USE {ATTACHED}")
                yield connection
            self.execute(f"DETACH {ATTACHED}")
        except BaseException:
            self.close()
            raise


def raw_connection(connection: sa.Connection) -> Any:
    """Return DuckDB's own connection."""
    return connection.connection.dbapi_connection


def fingerprint_query(table: str, columns: str = "*COLUMNS(*)") -> str:
    """Return the query for a `Fingerprint`, which reads every value of ``columns``.

    Args:
        table: its name, in quotes where it needs them, and what may follow it in a FROM clause.
        columns: separated by commas. Not the row as a whole: a column of the CSV may have the table's name.
    """
    return f"SELECT count(*), CAST(sum(CAST(hash({columns}) AS HUGEINT)) AS VARCHAR) FROM {table}"


def fingerprint(connection: sa.Connection, table: str, columns: str = "*COLUMNS(*)") -> Fingerprint:
    """Return the fingerprint of a table of the catalog; see `fingerprint_query`."""
    found: Fingerprint = raw_connection(connection).execute(fingerprint_query(table, columns)).fetchone()
    return found


@contextmanager
def registered_table(connection: sa.Connection, name: str, table: pa.Table) -> Iterator[None]:
    """Let queries on this connection read an Arrow table under a name."""
    duck = raw_connection(connection)
    duck.register(name, table)
    yield
    duck.unregister(name)  # not after an error: DuckDB would only report that the transaction is aborted


def attach(duck: Any, path: Path, name: str, *, read_only: bool) -> None:
    """Attach the database file ``path`` to the instance of the DuckDB connection ``duck``."""
    spelt = str(path).replace("'", "''")
    duck.execute(f"ATTACH '{spelt}' AS {name}{' (READ_ONLY)' if read_only else ''}")


def _close_instance(anchor: sa.Connection, engine: sa.Engine) -> None:
    anchor.close()
    engine.dispose()


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
