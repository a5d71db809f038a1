"""Reading a catalog file that may be damaged or malicious. Run it only in a process that may crash."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from featurestore.catalog.connection import LITTLE
from featurestore.catalog.statements import fingerprint_query
from featurestore.errors import CorruptFile
from featurestore.quoting import identifier
from featurestore.system import readable
from featurestore.wording import first_line


def salvage_runs(catalog: Path, target: Path) -> None:
    """Read every value of a catalog, whose tables may be larger than memory, and write ``runs`` to a Parquet file.

    Raises:
        CorruptFile: it can't be read.
        UnreadableFile: it can't be opened, for a reason outside of the file.
    """
    limits: dict[str, str | bool | int | float | list[str]] = {"threads": 1, "memory_limit": LITTLE}
    try:
        with readable(catalog), duckdb.connect(str(catalog), read_only=True, config=limits) as connection:
            tables = [name for (name,) in connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()]
            for name in tables:
                connection.execute(fingerprint_query(identifier(name))).fetchall()
            runs = connection.table("runs").to_arrow_table() if "runs" in tables else None
    except duckdb.Error as error:
        raise CorruptFile(f"{catalog} can't be read: {first_line(error)}") from error
    if runs is not None:
        pq.write_table(runs, target)
