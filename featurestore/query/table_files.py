"""Tables as Parquet and Arrow files, a table at a time: answers and exports are written with these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO

import pyarrow as pa


def write_parquet(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    file: IO[bytes],
    *,
    dictionary: bool | Sequence[str] = True,
    statistics: bool | Sequence[str] = True,
) -> None:
    """Write a Parquet file, compressed with zstd, of a row group for each table.

    Args:
        tables: of the schema.
        schema: of the file.
        file: open for writing.
        dictionary: which columns may have a dictionary; True is all of them.
        statistics: which columns have a least and a greatest value; True is all of them.
    """
    from pyarrow import parquet

    options = {"compression": "zstd", "use_dictionary": dictionary, "write_statistics": statistics}
    with parquet.ParquetWriter(file, schema, **options) as writer:
        for table in tables:
            writer.write_table(table)


def write_arrow(tables: Iterable[pa.Table], schema: pa.Schema, file: IO[bytes]) -> None:
    """Write an Arrow IPC file, uncompressed, of the tables' batches. It can be mapped into memory."""
    with pa.ipc.new_file(file, schema) as writer:
        for table in tables:
            writer.write_table(table)
