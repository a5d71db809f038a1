"""A long-lived in-memory DuckDB that attaches the catalog file for one transaction at a time.

Making an instance takes 20 ms, most of it for DuckDB's own functions; attaching a file to an existing one takes 1 ms.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from featurestore.quoting import literal

LITTLE = "1GB"  # memory limit for checks: DuckDB reads any number of blocks within it
ATTACHED = "attached"  # the schema name of the attached file

_LIVING = weakref.WeakSet["Instance"]()


def _disown() -> None:
    """Leave the instances of the parent process alone: their threads do not survive a fork, so closing one crashes."""
    for instance in list(_LIVING):
        instance.disown()


os.register_at_fork(after_in_child=_disown)


class Instance:
    """A DuckDB instance, in memory or of a file. It stays open until `close`."""

    def __init__(self, path: Path | None = None, *, threads: int | None = None, memory: str | None = None) -> None:
        """Open it in memory, or on the file ``path``.

        Args:
            path: of a file, new or not.
            threads: None is one for every core.
            memory: for blocks of the file, like ``"1GB"``; None is most of what the machine has.
        """
        limits: dict[str, Any] = {"threads": threads, "memory_limit": memory}
        config = {name: value for name, value in limits.items() if value is not None}
        self._anchor = duckdb.connect(":memory:" if path is None else path, config=config)
        # Closed at the latest when this object is collected, or when the interpreter exits.
        self._finalizer = weakref.finalize(self, self._anchor.close)
        _LIVING.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._finalizer.alive

    def close(self) -> None:
        """Close the instance; an in-memory database is lost."""
        self._finalizer()

    def disown(self) -> None:
        """Count as closed, and never close the connection."""
        self._finalizer.detach()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._anchor))  # not even when the interpreter exits

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Open a connection to it."""
        return self._anchor.cursor()

    def execute(self, statement: str) -> None:
        """Run a statement outside of a transaction."""
        self._anchor.execute(statement)

    def attach(self, path: Path, name: str = ATTACHED, *, read_only: bool) -> None:
        """Attach the database file ``path``; a missing file is created unless ``read_only``.

        Raises:
            duckdb.Error: it can't be opened.
        """
        attach(self._anchor, path, name, read_only=read_only)

    @contextmanager
    def attached(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection to the file attached as `ATTACHED`, and detach it at the end.

        After an exception the whole instance is closed, since DuckDB may accept no more statements.
        """
        try:
            with self.connect() as connection:
                connection.execute(f"USE {ATTACHED}")
                yield connection
            self.execute(f"DETACH {ATTACHED}")
        except BaseException:
            self.close()
            raise


def attach(duck: duckdb.DuckDBPyConnection, path: Path, name: str, *, read_only: bool) -> None:
    """Attach the database file ``path`` to the instance of the DuckDB connection ``duck``."""
    duck.execute(f"ATTACH {literal(str(path))} AS {name}{' (READ_ONLY)' if read_only else ''}")


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit at the end, and roll back on an exception."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        with suppress(duckdb.Error):  # DuckDB has ended the transaction, or accepts nothing any more
            connection.rollback()
        raise


def restart(connection: duckdb.DuckDBPyConnection) -> None:
    """Begin a new transaction after an error has ended the current one."""
    connection.rollback()
    connection.begin()
