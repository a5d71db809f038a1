"""Scratch folders: temporary files of one query or check. A container may have no place for them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from featurestore.errors import OutputError
from featurestore.system.child_processes import left_by_dead, owner_mark
from featurestore.system.memory import free_memory
from featurestore.system.paths import duckdb_objection

MEMORY = Path("/dev/shm")  # files in memory (Linux); writable in a container even if its root is read-only
MOST_IN_MEMORY = 1 << 30  # bytes of one file there


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder, and remove it at the end.

    Raises:
        OutputError: no folder can be made.
    """
    with temporary_folder() as name:
        yield Path(name)


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Make an empty folder that goes with the object.

    Raises:
        OutputError: no folder can be made.
    """
    found = next(_temporary_folders(), None)
    if found is None:
        raise no_scratch_folder()
    return found


@contextmanager
def optional_scratch_folder() -> Iterator[Path | None]:
    """Yield an empty folder, and remove it at the end; None if no folder can be made."""
    found = next(_temporary_folders(), None)
    if found is None:
        yield None
        return
    with found as name:
        yield Path(name)


def lasting_scratch_folder() -> Path | None:
    """Make an empty folder for the caller to remove; None if no folder can be made."""
    for place in _candidate_parents():
        if duckdb_objection(place) is None:
            with suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=_prefix(place), dir=place))
    return None


@contextmanager
def folder_in_memory(n_bytes: int) -> Iterator[Path | None]:
    """Yield an empty folder in memory, and remove it at the end.

    None if the system has no such place, or if a file of ``n_bytes`` would take more than half of its room, a quarter
    of the free memory, or `MOST_IN_MEMORY`.
    """
    folder = None
    try:
        room = min(MOST_IN_MEMORY, shutil.disk_usage(MEMORY).free // 2, (free_memory() or MOST_IN_MEMORY) // 4)
        if n_bytes <= room:
            folder = _folder_in(MEMORY)
    except OSError:
        pass  # the system has none, or this user may not write to it
    if folder is None:
        yield None
        return
    with folder as name:
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
                yield _folder_in(place)
            except OSError:
                continue


def _folder_in(place: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a folder. If it can't be removed, it stays for the next process: what it was for is done."""
    return tempfile.TemporaryDirectory(prefix=_prefix(place), dir=place, ignore_cleanup_errors=True)


def _prefix(place: Path) -> str:
    """Return how the name of a scratch folder begins; before the first one there, remove those of dead processes."""
    _remove_dead(place)
    return f"featurestore-{owner_mark()}"


@cache
def _remove_dead(place: Path) -> None:
    for path in left_by_dead(place, "featurestore-", "[a-z0-9_]{8}"):  # the end is Python's
        shutil.rmtree(path, ignore_errors=True)


def _candidate_parents() -> Iterator[Path]:
    try:
        yield Path(tempfile.gettempdir()).absolute()
    except OSError:
        pass  # Python found no writable folder, not even the current one
    yield MEMORY
