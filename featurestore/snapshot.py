"""A copy of the catalog's file of one's own, so that a question can take its time and hold up nobody.

A catalog of ten million images is copied in a fifth of a second. DuckDB then reads of it the columns and blocks that a
question needs and no more, out of compressed storage; as tables in memory the same catalog would take gigabytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import sqlalchemy as sa

from featurestore.instance import attach, raw
from featurestore.storage import room_on_disk

SNAPSHOT = "snapshot"  # the copy's name in the connection that has it attached


def copy_catalog(connection: sa.Connection, path: Path) -> None:
    """Copy the catalog that ``connection`` reads to the new file ``path``.

    Raises:
        NotEnoughSpace: there is no room for it.
    """
    found = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    source = connection.execute(sa.text(found)).scalar_one()
    with room_on_disk(f"a copy of the catalog, {path},"):
        if source is None:  # of an older format, brought up to date in memory
            connection.commit()  # a database can't be let go of in the transaction that wrote it
            duck = raw(connection)
            attach(duck, path, SNAPSHOT, read_only=False)
            duck.execute(f"COPY FROM DATABASE memory TO {SNAPSHOT}")
            duck.execute(f"DETACH {SNAPSHOT}")
            return
        shutil.copyfile(source, path)
        wal = Path(f"{source}.wal")  # what a writer that was killed had committed
        if wal.is_file():
            shutil.copyfile(wal, f"{path}.wal")


def attach_copy(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Attach the copy at ``path``, to be read only, under the name `SNAPSHOT`."""
    attach(connection, path, SNAPSHOT, read_only=True)
