"""Scratch folders: temporary files of one query or check. A container may have no place for them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import OutputError
from featurestore.system.paths import duckdb_objection

MEMORY = Path("/dev/shm")  # writable in a container even if its root is read-only


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder, and remove it at the end.

    Raises:
        OutputError: no folder can be made.
    """
    with optional_scratch_folder() as folder:
        if folder is None:
            raise no_scratch_folder()
        yield folder


@contextmanager
def optional_scratch_folder() -> Iterator[Path | None]:
    """Yield an empty folder, and remove it at the end; None if no folder can be made."""
    found = next(_temporary_folders(), None)
    if found is None:
        yield None
        return
    with found as name:
        yield Path(name)


def copy_database(source: Path, target: Path) -> None:
    """Copy a DuckDB database file, and its write-ahead log if a killed writer left one."""
    shutil.copyfile(source, target)
    wal = Path(f"{source}.wal")
    if wal.is_file():
        shutil.copyfile(wal, f"{target}.wal")


def no_scratch_folder() -> OutputError:
    """Return the error for a machine without a writable temporary folder."""
    return OutputError(
        "there is no folder for temporary files: neither the system's nor the current one can be written; "
        "name one in the environment variable TMPDIR"
    )


def _temporary_folders() -> Iterator[tempfile.TemporaryDirectory[str]]:
    for place in _candidate_parents():
        if duckdb_objection(place) is None:
            try:
                yield tempfile.TemporaryDirectory(prefix="featurestore-", dir=place)
            except OSError:
                continue


def _candidate_parents() -> Iterator[Path]:
    try:
        yield Path(tempfile.gettempdir()).absolute()
    except OSError:
        pass  # Python found no writable folder, not even the current one
    yield MEMORY
