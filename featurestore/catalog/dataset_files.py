"""The dataset files that ingests have read, and whether the recipe's file has changed since."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from featurestore.catalog.context import Context
from featurestore.catalog.schema import DatasetFile
from featurestore.catalog.table_rows import query_rows, upsert
from featurestore.errors import UnreadableFile
from featurestore.system import command_line, file_digest


@dataclass(frozen=True)
class Observed:
    """A dataset file as it was when it was read: a row of `schema.DatasetFile`."""

    path: str
    n_bytes: int
    mtime_ns: int
    digest: str


def observed_before(connection: sa.Connection) -> list[Observed]:
    """Return every dataset file that was read, as it was then; none for a store that was made before they were kept."""
    return query_rows(connection, Observed, "SELECT * FROM dataset_files")


def record_observed(connection: sa.Connection, observed: Observed) -> None:
    """Record a dataset file that was read."""
    upsert(connection, DatasetFile, vars(observed))


def change_note(context: Context, before: Sequence[Observed]) -> str | None:
    """Return a line if the recipe's dataset file is not the one that was read, None if it is or can't be told.

    Its content is looked at only where its size or time is another. A store that knows of no reading says nothing.

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
        if known is not None and (known.n_bytes, known.mtime_ns) == (found.st_size, found.st_mtime_ns):
            return None
        # Elsewhere, as after a move to another machine, any content that was read will do.
        if file_digest(path) in [row.digest for row in ([known] if known is not None else before)]:
            return None
    except (OSError, UnreadableFile):  # only an ingest needs it, and says what is wrong
        return None
    what = "has changed since it was read" if known is not None else "has not been read yet"
    return f"the dataset {path} {what}; to read it: {command_line('ingest', context.root.path)}, or run --ingest"


def path_key(path: Path) -> str:
    """Return the text by which the catalog knows a dataset file."""
    return os.fsencode(path).decode(errors="backslashreplace")  # a path need not be UTF-8, and text of the catalog is
