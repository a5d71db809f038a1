"""A process of its own for what may crash: reading files that somebody else made, or that are damaged.

The child is given as much memory as honest files need and no more. A crash, whatever its cause, becomes one line.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurestore import errors
from featurestore.errors import CorruptFile, FeatureStoreError
from featurestore.system import ending, environment, python_command, readable, reason_unreadable, unreadable
from featurestore.wording import first_line

MEMORY = 4 << 30  # bytes of address space; a row group of the largest images takes a fraction of it
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS)
REFUSED = 3  # the exit code of a child that has something to say


def run_child(job: str, *arguments: Path, memory: int = MEMORY) -> None:
    """Run one of `JOBS` in a process of its own.

    Raises:
        CorruptFile: what it read is damaged, or made the process crash.
        UnreadableFile: a file could not be read, or the process could not be started or was ended from outside.
        FeatureStoreError: whatever else the job raises.
    """
    small = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    started = python_command("featurestore.child", job, str(memory), *map(str, arguments))
    with readable(arguments[0]):
        done = subprocess.run(started, capture_output=True, env=environment(**small), check=False)
    if done.returncode == 0:
        return
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode == REFUSED and lines:
        name, message = json.loads(lines[-1])
        raise getattr(errors, name)(message)
    reason = _reason(done.returncode, done.stderr.decode(errors="replace"))
    if reason is not None:
        raise unreadable(arguments[0], reason)
    at = f" at {lines[-1]}" if lines else ""
    raise CorruptFile(f"the process that reads {arguments[0]} ended with {ending(done.returncode)}{at}; {_ADVICE}")


_ADVICE = "the file is damaged, or was made to do harm: put back a copy of it"


def _reason(code: int, stderr: str) -> str | None:
    """Return why the process failed, if that says nothing of what it read; else it crashed of that."""
    words = [reason_unreadable(RuntimeError(line)) for line in stderr.splitlines()]
    known = next(filter(None, words), None)
    if known is None and -code not in CRASHES:
        return f"the process that reads it ended with {ending(code)}"
    return known


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
    from featurestore.rebuild import fill
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
