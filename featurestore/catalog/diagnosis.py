"""Diagnosis of DuckDB's errors about the catalog: damaged, unreadable, not written, locked, or a mistake of our own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from featurestore.errors import CorruptFile, NotWritable
from featurestore.system import (
    FULL,
    REFUSALS,
    advice_for,
    command_line,
    not_enough_space,
    not_writable,
    reason_unreadable,
    unreadable,
)
from featurestore.wording import first_line

DAMAGE = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)
# A missing table or column, or one of another type: a damaged catalog, or a mistake in our SQL.
ANOTHER_SCHEMA = (duckdb.CatalogException, duckdb.BinderException)


# What fails while the file is written says nothing about what it holds.
UNWRITTEN = ("Could not write", "Could not fsync", "fsync failed", "CHECKPOINT during DETACH failed")


def remedy(catalog: Path) -> str:
    """Return the advice to rebuild the catalog file ``catalog``."""
    return f"make it again from the store's other files: {command_line('rebuild', catalog.parent)}"


def is_about_the_file(error: BaseException | None, path: Path) -> bool:
    """Return whether an error is about the file, rather than about the query."""
    text = str(error).replace(str(path), "")
    # DuckDB has no error class for a wrong checksum; failed writes are the disk's fault.
    damaged = (isinstance(error, DAMAGE) and "write" not in text) or type(error) is duckdb.Error
    return damaged or isinstance(error, duckdb.OutOfMemoryException) or any(words in text for words in FULL)


def unwritten(path: Path, error: duckdb.Error) -> Exception | None:
    """Return an error of ours for a catalog that can't be written; None if the error is about something else."""
    text = str(error)
    if not any(words in text for words in UNWRITTEN):
        return None
    for words in FULL:
        if words in text:
            return not_enough_space(path.name, words)
    reason = next(filter(None, map(reason_unreadable, map(OSError, text.splitlines()))), first_line(error))
    if reason in REFUSALS:
        return not_writable(path)
    return NotWritable(
        f"{path} can't be written: {reason}; nothing is known to be wrong with what it holds. Do not delete it: "
        f"{advice_for(reason)}, then run the same command again"
    )


def unopenable(path: Path, error: BaseException | None) -> Exception:
    """Return an error of ours for a catalog that DuckDB can't open."""
    for text in FULL:
        if text in str(error):
            return not_enough_space(path.name, text)
    if error is not None and (words := reason_unreadable(error)) is not None:
        return unreadable(path, words)
    fault = f"{path} can't be read: {first_line(error)}"
    damaged = CorruptFile(f"{fault}; {remedy(path)}")
    damaged.fault = fault
    return damaged


def is_locked(error: BaseException) -> bool:
    """Return whether another process has the file open."""
    return "set lock" in first_line(error).lower()


@contextmanager
def noticing_interrupts() -> Iterator[None]:
    """Restore KeyboardInterrupt: DuckDB raises RuntimeError for Ctrl-C during a query."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != "Query interrupted":
            raise
        raise KeyboardInterrupt from error
