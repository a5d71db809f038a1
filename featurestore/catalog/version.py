"""The version of a catalog's file: a key that changes with every commit, whatever clocks and file systems do."""

from __future__ import annotations

import os
from pathlib import Path

# The three headers of a DuckDB file. A checkpoint counts up in one of them; what is committed before it is in the
# write-ahead log, which only grows. Times alone may be those of the commit before.
HEADERS = 3 * 4096

Version = tuple[bytes, tuple[int, ...], tuple[int, ...]]


def file_version(path: Path) -> Version | None:
    """Return the version of the catalog file ``path``; None if it can't be read.

    Only under the catalog's lock: to close the file takes away the locks that DuckDB has on it in this process.
    """
    try:
        with path.open("rb", buffering=0) as file:
            headers, state = file.read(HEADERS), os.fstat(file.fileno())
        log = Path(f"{path}.wal")
        return headers, _key(state), _key(log.stat()) if log.exists() else ()
    except OSError:
        return None


def _key(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
