"""The jobs of the sandbox, and the program of its child process."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurestore.errors import CorruptFile, FeatureStoreError
from featurestore.maintenance.sandbox import REFUSED
from featurestore.system import readable, unreadable
from featurestore.wording import first_line


def _opened(catalog: Path) -> Any:
    import duckdb

    from featurestore.catalog import LITTLE

    return duckdb.connect(str(catalog), read_only=True, config={"threads": 1, "memory_limit": LITTLE})


def _salvage(catalog: Path, target: Path) -> None:
    """Read every value of a catalog, whose tables may be larger than memory, and write ``runs`` to a Parquet file."""
    import duckdb
    import pyarrow.parquet as pq

    from featurestore.catalog import fingerprint_query

    try:
        with readable(catalog), _opened(catalog) as connection:
            tables = [name for (name,) in connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()]
            for name in tables:
                quoted = name.replace('"', '""')
                connection.execute(fingerprint_query(f'"{quoted}"')).fetchall()
            runs = connection.table("runs").to_arrow_table() if "runs" in tables else None
    except duckdb.Error as error:
        raise CorruptFile(f"{catalog} can't be read: {first_line(error)}") from error
    if runs is not None:
        pq.write_table(runs, target)


def _vet(store: Path, target: Path) -> None:
    """Read every file of a store, and write the catalog that follows from those that are what they should be."""
    from featurestore.catalog import LITTLE, HeldCatalog
    from featurestore.maintenance.rebuild import fill
    from featurestore.storage import Root

    root = Root(store)
    with HeldCatalog(root, target, memory=LITTLE) as catalog:
        found = fill(root, catalog, watch=lambda name: print(name, flush=True))
    notes = [*found.notes, *(f"left out: {line}" for line in found.unreadable)]
    target.with_name("notes.json").write_text(json.dumps(notes), encoding="utf-8")


JOBS = {"salvage": _salvage, "vet": _vet}


def main(arguments: Sequence[str]) -> int:
    """Do one job within its memory; what it refuses is printed as JSON, as the last line."""
    import resource

    job, memory, *paths = arguments
    with contextlib.suppress(ValueError):  # less is allowed already
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        JOBS[job](*map(Path, paths))
    except (FeatureStoreError, MemoryError) as error:
        reason = f"it needs more than {int(memory) >> 30} GiB of memory"
        refused = error if isinstance(error, FeatureStoreError) else unreadable(Path(paths[0]), reason)
        print(json.dumps([type(refused).__name__, str(refused)]))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
