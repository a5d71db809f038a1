"""Questions to a store whose answers are tables of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featurestore.api import FeatureStore
from featurestore.apps.html_report.parts import Column, Table

MOST_TEXT = 300  # characters of a text that people wrote: a file name, a cell, an error
FILENAME = Column("image", "image")
DESCRIPTORS = Column("descriptors", "number")
USABLE = "status IN ('ok', 'empty')"


def rows_of(store: FeatureStore, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of an answer."""
    return store.sql(query).fetchall()


def table_of(store: FeatureStore, caption: str, columns: Sequence[Column], query: str, *, most: int = 0) -> Table:
    """Return the answer of a question as a table.

    Args:
        store: that is asked.
        caption: of the table.
        columns: as many as the answer has.
        query: SQL, as it is shown.
        most: rows that are shown; 0 shows all.
    """
    rows = rows_of(store, query)
    shown = rows[:most] if most else rows
    return Table(caption, columns, shown, query, left_out=len(rows) - len(shown))


def short(column: str) -> str:
    """Return SQL for the beginning of a text."""
    return f"left({column}, {MOST_TEXT})"
