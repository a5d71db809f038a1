"""DuckDB in this process, and how a database file is open in it for a moment.

An instance takes 20 ms to make, most of it for its own functions; to attach a file to one that is there takes 1 ms.
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

LITTLE = "1GB"  # of memory, for checks: DuckDB reads any number of blocks with it
ATTACHED = "attached"  # the name of the file that is open
Fingerprint = tuple[int, str | None]  # how many rows, and the sum of their hashes, whatever their order
registry.register("duckdb", "duckdb_engine", "Dialect")  # else SQLAlchemy searches all that is installed for it


class Instance:
    """One DuckDB, in memory or of a file, which stays open until `close`."""

    def __init__(self, path: Path | None = None, *, threads: int | None = None, memory: str | None = None) -> None:
        """Make it in memory, or of the file ``path``.

        Args:
            path: of a file, new or not.
            threads: None is one for every core.
            memory: for blocks of the file, like ``"1GB"``; None is most of what the machine has.
        """
        database = str(path) if path is not None else f":memory:{uuid.uuid4().hex}"
        limits = {"threads": threads, "memory_limit": memory}
        options = {"config": {name: value for name, value in limits.items() if value is not None}}
        url = sa.URL.create("duckdb", database=database)  # not as text: a "?" in the path would end it
        self._engine = sa.create_engine(url, poolclass=NullPool, connect_args=options)
        # Further connections to the same name in this process share what this one holds open.
        self._anchor = self._engine.connect()
        # Closed at the latest when nobody has it any more, or when the interpreter ends.
        self._letting_go = weakref.finalize(self, _let_go, self._anchor, self._engine)

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._letting_go.alive

    def close(self) -> None:
        """Let go of it; what was in memory is gone."""
        self._letting_go()

    def connect(self) -> sa.Connection:
        """Open a connection to it."""
        return self._engine.connect()

    def execute(self, statement: str) -> None:
        """Run a statement outside of any transaction."""
        raw_connection(self._anchor).execute(statement)

    def attach(self, path: Path, name: str = ATTACHED, *, read_only: bool) -> None:
        """Open the database file ``path`` in it; one that is not there is made, unless it is only to be read.

        Raises:
            duckdb.Error: it can't be opened.
        """
        attach(raw_connection(self._anchor), path, name, read_only=read_only)

    @contextmanager
    def attached(self) -> Iterator[sa.Connection]:
        """Open a connection to the file that was attached as `ATTACHED`, and let go of the file at the end.

        After an exception the whole instance is closed: it may be that DuckDB takes nothing more.
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
        columns: separated by commas. The row as a whole is no choice: a column of the CSV may have the table's name.
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
    duck.unregister(name)  # not after an error: DuckDB would say no more than that the transaction is over


def attach(duck: Any, path: Path, name: str, *, read_only: bool) -> None:
    """Open the database file ``path`` in whatever the DuckDB connection ``duck`` belongs to."""
    spelt = str(path).replace("'", "''")
    duck.execute(f"ATTACH '{spelt}' AS {name}{' (READ_ONLY)' if read_only else ''}")


def _let_go(anchor: sa.Connection, engine: sa.Engine) -> None:
    anchor.close()
    engine.dispose()


def forget_overloads() -> None:
    """Keep DuckDB quiet at exit, where it would print "nanobind: leaked 27 instances!" and a page more (duckdb 2.0.0).

    DuckDB never lets go of the function with which it reads Arrow. That holds the module typing, and typing holds what
    SQLAlchemy declared as overloads: in its registry, and where ``dataclass_transform`` marks the function that stands
    for every overload. From there it is two steps to duckdb-engine, and one more to DuckDB's own types, which outlive
    the interpreter. Nobody asks for overloads at exit.
    """
    stands_for_all = typing.overload(forget_overloads)
    typing.clear_overloads()
    vars(stands_for_all).clear()
