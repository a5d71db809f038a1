"""What a catalog holds, read past the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from featurestore.quoting import literal
from featurestore.storage import CATALOG

TABLES = (
    *("ingests", "images", "chunks", "dataset_columns", "variants", "partitions", "results", "models"),
    *("training_images", "runs"),
)


@contextmanager
def opened(store: Path, *, read_only: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a catalog, attached to an instance in memory, which is cheaper than one of its own."""
    access = " (READ_ONLY)" if read_only else ""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH {literal(str(store / CATALOG))} AS opened{access}")
        connection.execute("USE opened")
        yield connection
        connection.execute("USE memory")
        connection.execute("DETACH opened")


def rows(store: Path, query: str) -> list[tuple[Any, ...]]:
    """The answer to a query over the catalog's own tables."""
    with opened(store) as connection:
        return connection.execute(query).fetchall()


def tables(store: Path, *, without: tuple[str, ...] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of a catalog, in an order that does not depend on how it came about."""
    names = [name for name in TABLES if name not in without]
    with opened(store) as connection:
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall() for name in names}


def change(store: Path, *statements: str) -> None:
    """Change a catalog behind the package's back."""
    with opened(store, read_only=False) as connection:
        for statement in statements:
            connection.execute(statement)
