"""Spilling: tables of millions of rows, written to disk and mapped into memory.

Mapped pages are file cache, which the system can reclaim. The file is unlinked as soon as it is mapped, so that it
disappears with its table, even if the process is killed.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from featurestore.system.disk import FULL, not_enough_space, room_on_disk

ROWS_TOGETHER = 50_000  # in memory at a time
DUCKDB_MEGABYTES = 500  # and one for each column; beyond that, DuckDB sorts and joins on disk too
MOST_THREADS = 4  # each has its own buffers
INDEX_BYTES = 16  # for each row of a table's index, which stays in memory
WHAT = "what an ingest keeps on disk for a while"


@dataclass(frozen=True)
class Spill:
    """The place of large tables: a folder of the store, or None for tables in memory."""

    folder: Path | None = None

    def table(self, rows: duckdb.DuckDBPyRelation) -> pa.Table:
        """Return a query's result."""
        if self.folder is None:
            return rows.to_arrow_table()
        reader = rows.to_arrow_reader(ROWS_TOGETHER)
        return self.keep(reader, reader.schema)

    def keep(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
        """Return record batches as one table."""
        if self.folder is None:
            return pa.Table.from_batches(batches, schema)
        path = self.folder / f".tmp-{uuid.uuid4().hex[:12]}-rows.arrow"
        try:
            with room_on_disk(WHAT):
                with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                    for batch in batches:
                        writer.write_batch(batch)
                return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """Yield the path of a temporary file, and remove it at the end.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        folder = self.folder or Path(tempfile.gettempdir())
        path = folder / f".tmp-{uuid.uuid4().hex[:12]}-rows"
        try:
            with room_on_disk(WHAT):
                yield path
        finally:
            path.unlink(missing_ok=True)

    def filter(self, rows: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
        """Return the rows of a table for which the mask is true."""
        marked = rows.append_column("", mask)
        found = (batch.filter(batch.column(batch.num_columns - 1)) for batch in marked.to_batches(ROWS_TOGETHER))
        return self.keep((batch.select(range(rows.num_columns)) for batch in found), rows.schema)

    @contextmanager
    def bounding(self, con: duckdb.DuckDBPyConnection, *, columns: int, indexed: int = 0) -> Iterator[None]:
        """Bound DuckDB's memory; beyond the bound it works on disk.

        Args:
            con: a connection.
            columns: of the widest rows.
            indexed: rows of an index, which stays in memory.

        Raises:
            NotEnoughSpace: the disk is full.
        """
        if self.folder is not None:
            memory = DUCKDB_MEGABYTES + columns + indexed * INDEX_BYTES // 10**6
            query = "SELECT current_setting('threads'), current_setting('temp_directory')"
            ((threads, before),) = con.execute(query).fetchall()
            settings = [f"memory_limit = '{memory}MB'", f"threads = {min(MOST_THREADS, threads)}"]
            begin, end = str(self.folder / ".tmp-"), "-duckdb"
            # Where it was bounded before it may have files, and DuckDB then takes no other place.
            if not (before.startswith(begin) and before.endswith(end)):
                place = f"{begin}{uuid.uuid4().hex[:12]}{end}".replace("'", "''")
                settings.append(f"temp_directory = '{place}'")
            for setting in settings:
                con.execute(f"SET {setting}")
        with noticing_no_room():
            yield


@contextmanager
def noticing_no_room() -> Iterator[None]:
    """Turn DuckDB's errors about a full disk into `NotEnoughSpace`.

    Raises:
        NotEnoughSpace: the disk is full.
    """
    try:
        yield
    except duckdb.Error as error:
        full = next((text for text in FULL if text in str(error)), None)
        if full is None:
            raise
        raise not_enough_space(WHAT, full) from error


IN_MEMORY = Spill()
