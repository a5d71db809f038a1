"""A folder for files that live as long as a question or a check, where there is one: a container may have none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import OutputError
from featurestore.system.paths import duckdb_objection

MEMORY = Path("/dev/shm")  # which a container has although its root can't be written


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder, which is removed at the end.

    Raises:
        OutputError: there is no place for one.
    """
    with optional_scratch_folder() as folder:
        if folder is None:
            raise no_scratch_folder()
        yield folder


@contextmanager
def optional_scratch_folder() -> Iterator[Path | None]:
    """Yield an empty folder, which is removed at the end, or None where there is no place for one."""
    found = next(_made(), None)
    if found is None:
        yield None
        return
    with found as name:
        yield Path(name)


def copy_database(source: Path, target: Path) -> None:
    """Copy the file of a DuckDB database, with what a writer that was killed had committed beside it."""
    shutil.copyfile(source, target)
    wal = Path(f"{source}.wal")
    if wal.is_file():
        shutil.copyfile(wal, f"{target}.wal")


def no_scratch_folder() -> OutputError:
    """Return the error that says so."""
    return OutputError(
        "there is no folder for temporary files: neither the system's nor the current one can be written; "
        "name one in the environment variable TMPDIR"
    )


def _made() -> Iterator[tempfile.TemporaryDirectory[str]]:
    for place in _places():
        if duckdb_objection(place) is None:
            try:
                yield tempfile.TemporaryDirectory(prefix="featurestore-", dir=place)
            except OSError:
                continue  # the next may do


def _places() -> Iterator[Path]:
    try:
        yield Path(tempfile.gettempdir()).absolute()
    except OSError:
        pass  # what Python has tried, the current folder included, can't be written
    yield MEMORY
