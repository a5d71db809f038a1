"""Snapshots: a private copy of the catalog's file, so that a long query delays no other process.

A catalog of ten million images is copied in a fifth of a second, to a file in memory. DuckDB then reads only the
columns and blocks that a query needs, from compressed storage; as tables the same catalog would take gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from featurestore.catalog.catalog import HeldCatalog
from featurestore.catalog.connection import LITTLE, attach
from featurestore.catalog.statements import query_value
from featurestore.storage import CATALOG, Root
from featurestore.system import copy_database, file_size, folder_in_memory, no_scratch_folder, room_on_disk

SNAPSHOT = "snapshot"  # the copy's name in the connection that has it attached


def attach_copy(connection: duckdb.DuckDBPyConnection, catalog: duckdb.DuckDBPyConnection, folder: Path | None) -> None:
    """Copy the catalog that ``catalog`` reads, and attach the copy, to be read only, as `SNAPSHOT`.

    The copy is a file in memory, or in ``folder`` if it is too large for that. It loses its name as soon as it is
    attached, so that it is gone with the connection, even if the process is killed.

    Args:
        connection: of another DuckDB.
        catalog: open for reading.
        folder: for temporary files; None if there is none.

    Raises:
        NotEnoughSpace: there is no room for it.
        OutputError: a catalog of an older format needs a folder.
    """
    found = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    source: str | None = query_value(catalog, found)
    with _place(source, folder) as place:
        if place is None:
            _copy_tables(connection, source)
            return
        path = place / CATALOG
        try:
            with room_on_disk(f"a copy of the catalog, {path},"):
                _copy_to_file(catalog, source, path)
            attach(connection, path, SNAPSHOT, read_only=True)
        finally:
            path.unlink(missing_ok=True)
            Path(f"{path}.wal").unlink(missing_ok=True)


@contextmanager
def _place(source: str | None, folder: Path | None) -> Iterator[Path | None]:
    """Yield the folder for a copy of the catalog file ``source``; None if there is none."""
    if source is None:  # brought up to date in memory, and its file may take any size
        yield folder
        return
    with folder_in_memory(file_size(Path(source))) as memory:
        yield memory or folder


def _copy_tables(connection: duckdb.DuckDBPyConnection, source: str | None) -> None:
    """Copy all tables into memory, where they take more of it than their file."""
    if source is None:
        raise no_scratch_folder()
    connection.execute(f"ATTACH ':memory:' AS {SNAPSHOT}")
    attach(connection, Path(source), "source", read_only=True)
    connection.execute(f"COPY FROM DATABASE source TO {SNAPSHOT}")
    connection.execute("DETACH source")


def _copy_to_file(catalog: duckdb.DuckDBPyConnection, source: str | None, path: Path) -> None:
    if source is None:  # of an older format, brought up to date in memory
        attach(catalog, path, SNAPSHOT, read_only=False)
        catalog.execute(f"COPY FROM DATABASE memory TO {SNAPSHOT}")
        catalog.execute(f"DETACH {SNAPSHOT}")
        return
    copy_database(Path(source), path)


@contextmanager
def held_copy(root: Root, path: Path, target: Path) -> Iterator[HeldCatalog]:
    """Yield a copy of the catalog file ``path`` in the new file ``target``, brought up to date, for checks.

    It takes bounded memory, however many images there are.

    Raises:
        CorruptFile: it is damaged or not a DuckDB file.
        FormatError: it was made by a newer version.
        NotEnoughSpace: there is no room for it.
    """
    with room_on_disk(f"a copy of the catalog, {target},"):
        copy_database(path, target)
    with HeldCatalog(root, target, memory=LITTLE) as copy:
        copy.migrate()
        yield copy
