"""What a catalog holds, read past the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from featurestore.storage import CATALOG

TABLES = (
    *("ingests", "images", "chunks", "dataset_columns", "variants", "partitions", "results", "models"),
    *("training_images", "runs"),
)


def rows(store: Path, query: str) -> list[tuple[Any, ...]]:
    """The answer to a query over the catalog's own tables."""
    with duckdb.connect(store / CATALOG, read_only=True) as connection:
        return connection.sql(query).fetchall()


def tables(store: Path, *, without: tuple[str, ...] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of a catalog, in an order that does not depend on how it came about."""
    return {name: rows(store, f"SELECT * FROM {name} ORDER BY ALL") for name in TABLES if name not in without}


def change(store: Path, *statements: str) -> None:
    """Change a catalog behind the package's back."""
    with duckdb.connect(store / CATALOG) as connection:
        for statement in statements:
            connection.execute(statement)
