"""Dataset files as they were when an ingest read them, and whether the recipe's file has changed since."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection

from featurestore.catalog.context import Context
from featurestore.catalog.statements import upsert
from featurestore.catalog.table_rows import query_rows
from featurestore.errors import UnreadableFile
from featurestore.system import changed_ns, command_line, file_digest


@dataclass(frozen=True)
class Observed:
    """A dataset file as it was when it was read: a row of `schema.DatasetFile`."""

    path: str
    n_bytes: int
    mtime_ns: int
    digest: str


def observed_before(connection: DuckDBPyConnection) -> list[Observed]:
    """Return the recorded dataset files; none in a store older than this record."""
    return query_rows(connection, Observed, "SELECT * FROM dataset_files")


def record_observed(connection: DuckDBPyConnection, observed: Observed) -> None:
    """Record a dataset file that was read."""
    upsert(connection, "dataset_files", vars(observed))


def change_note(context: Context, before: Sequence[Observed]) -> str | None:
    """Return a line if the recipe's dataset file has changed since it was read; None if not, or if that is unknown.

    Its content is read only if its size or time differs.

    Args:
        context: of the store.
        before: from `observed_before`.
    """
    path = context.dataset
    if path is None or not before:
        return None
    known = next((row for row in before if row.path == path_key(path)), None)
    try:
        found = path.stat()
        if known is not None and (known.n_bytes, known.mtime_ns) == (found.st_size, changed_ns(found)):
            return None
        # At another path, as after a move to another machine, any recorded content is accepted.
        if file_digest(path) in [row.digest for row in ([known] if known is not None else before)]:
            return None
    except (OSError, UnreadableFile):  # only an ingest needs it, and will report the error
        return None
    what = "has changed since it was read" if known is not None else "has not been read yet"
    return f"the dataset {path} {what}; to read it: {command_line('ingest', context.root.path)}, or run --ingest"


def path_key(path: Path) -> str:
    """Return the catalog's key of a dataset file."""
    return os.fsencode(path).decode(errors="backslashreplace")  # text must be UTF-8, paths need not
