"""In-memory DuckDB instances that are used again: making one takes 30 ms of CPU time, and a test makes a dozen.

An instance comes back only as it was: with no database attached, nothing created and no setting changed. Any other is
closed, and so is one that is in doubt. Each user has a connection of its own, with temporary tables of its own.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from tests.faults import is_ordinary_user

SETS = re.compile(r"\s*(?:SET|RESET|PRAGMA|INSTALL|LOAD)\b\s*(?:GLOBAL\s+)?(\w*)", re.IGNORECASE)
RESETTABLE = {"memory_limit", "temp_directory", "threads", "preserve_insertion_order"}
LEFT = """
    PREPARE things_left AS SELECT database_name FROM duckdb_databases() WHERE NOT internal
    UNION ALL SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal
"""  # once for each instance, since the question then takes a third of the time
IN_DOUBT = (duckdb.FatalException, duckdb.InternalException, duckdb.InterruptException, duckdb.OutOfMemoryException)
# Of the process, since threads of DuckDB do not survive a fork; whether it is an ordinary user, since they keep the
# rights with which they began; and the configuration.
Key = tuple[int, bool, str]


new: Callable[..., Any] = duckdb.connect  # before a test session puts `Instances.connect` in its place


class Instances:
    """Instances that wait for their next user."""

    def __init__(self, connect: Callable[..., Any] = new) -> None:
        """Take new ones from ``connect``."""
        self._connect = connect
        self._free: dict[Key, list[Any]] = defaultdict(list)

    def connect(self, database: str | Path = ":memory:", read_only: bool = False, **options: Any) -> Any:
        """Be `duckdb.connect`: an instance in memory is one that was used before, if there is one."""
        if database != ":memory:" or read_only or options.keys() - {"config"}:
            return self._connect(database, read_only, **options)
        free = self._free[os.getpid(), is_ordinary_user(), repr(sorted(options.get("config", {}).items()))]
        with suppress(IndexError):
            return Recycled(free.pop(), free)
        instance = self._connect(database, **options)
        instance.execute(LEFT)
        return Recycled(instance, free)


class Recycled:
    """A connection to such an instance."""

    def __init__(self, instance: Any, free: list[Any]) -> None:
        """Return ``instance`` to ``free`` when it is closed."""
        self._instance, self._free = instance, free
        self._connection = instance.cursor()
        self._changed: set[str] = set()
        self._pid = os.getpid()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: Any, *arguments: Any, **named: Any) -> Any:
        """Run a statement, and note what it sets."""
        if not isinstance(query, str) or ";" in query.rstrip("; \n"):
            self._changed.add("perhaps")
        elif found := SETS.match(query):
            self._changed.add(found[1].lower())
        return self._connection.execute(query, *arguments, **named)

    def close(self) -> None:
        """Close the connection, and give its instance back or close that too."""
        instance, self._instance = self._instance, None
        self._connection.close()
        if instance is None or self._pid != os.getpid():
            return
        if is_as_new(instance, self._changed):
            self._free.append(instance)
        else:
            instance.close()

    def __enter__(self) -> Recycled:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None and (isinstance(error, IN_DOUBT) or not isinstance(error, Exception)):
            self._changed.add("perhaps")
        self.close()


def is_as_new(instance: Any, changed: set[str]) -> bool:
    """Take back what was set, and see whether anything is left."""
    if not changed <= RESETTABLE:
        return False
    try:
        for name in changed:
            instance.execute(f"RESET GLOBAL {name}")
        found: list[tuple[str]] = instance.execute("EXECUTE things_left").fetchall()
    except duckdb.Error:
        return False
    return found == [("memory",)]
