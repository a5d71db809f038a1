"""Questions to a store whose answers are tables of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from featurestore.apps.html_report.parts import Column, Table

if TYPE_CHECKING:
    from featurestore.query import QueryResult

Ask = Callable[[str], "QueryResult"]  # `FeatureStore.sql`, or what `FeatureStore.snapshot` yields

MOST_TEXT = 300  # characters of a text that people wrote: a file name, a cell, an error
FILENAME = Column("image", "image")
DESCRIPTORS = Column("descriptors", "number")
USABLE = "status IN ('ok', 'empty')"


def rows_of(ask: Ask, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of an answer."""
    return ask(query).fetchall()


def table_of(ask: Ask, caption: str, columns: Sequence[Column], query: str, *, most: int = 0) -> Table:
    """Return the answer of a question as a table.

    Args:
        ask: that runs it.
        caption: of the table.
        columns: as many as the answer has.
        query: SQL, as it is shown.
        most: rows that are shown; 0 shows all.
    """
    rows = rows_of(ask, query)
    shown = rows[:most] if most else rows
    return Table(caption, columns, shown, query, left_out=len(rows) - len(shown))


def short(column: str) -> str:
    """Return SQL for the beginning of a text."""
    return f"left({column}, {MOST_TEXT})"
