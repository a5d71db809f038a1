"""Statements on the catalog's tables: queries that return a value or an Arrow table, and rows put in and taken out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.quoting import identifier

LOG = logging.getLogger("featurestore.catalog")
DATASET_COLUMNS = "dataset_columns"  # the table of the dataset's own columns, which every dataset has its own of
Fingerprint = tuple[int, str | None]  # the number of rows, and the sum of their hashes, in any order
Values = Mapping[str, Any]  # by column; a dictionary is stored as JSON


def query_arrow(connection: DuckDBPyConnection, query: str, parameters: Values | None = None) -> pa.Table:
    """Return a query's result as an Arrow table; ``parameters`` are the values of its ``$name``."""
    LOG.debug("%s", query)
    return connection.sql(query, params=dict(parameters or {})).to_arrow_table()


def query_tuples(
    connection: DuckDBPyConnection, query: str, parameters: Values | None = None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the names of a query's columns, and its rows as tuples.

    Of a few rows that takes half as long as `query_arrow`, for which DuckDB plans the query twice; of many as long.
    """
    LOG.debug("%s", query)
    executed = connection.execute(query, dict(parameters or {}))
    return [name for name, *_ in executed.description], executed.fetchall()


def query_column(connection: DuckDBPyConnection, query: str, parameters: Values | None = None) -> list[Any]:
    """Return the values of a query's only column."""
    return [value for (value,) in query_tuples(connection, query, parameters)[1]]


def query_pairs(connection: DuckDBPyConnection, query: str, parameters: Values | None = None) -> dict[Any, Any]:
    """Return the second of a query's two columns by the first."""
    return dict(query_tuples(connection, query, parameters)[1])


def query_value(connection: DuckDBPyConnection, query: str, parameters: Values | None = None) -> Any:
    """Return the value of a query whose result is one row of one column."""
    ((value,),) = connection.execute(query, dict(parameters or {})).fetchall()
    return value


def insert_arrow(connection: DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    """Append an Arrow table to a table of the catalog, by column name."""
    with registered_table(connection, "arrow_rows", rows):
        connection.execute(f"INSERT INTO {identifier(table)} BY NAME SELECT * FROM arrow_rows")


def insert_row(connection: DuckDBPyConnection, table: str, values: Values) -> None:
    """Insert a row."""
    _put(connection, "INSERT", table, [values])


def insert_rows(connection: DuckDBPyConnection, table: str, rows: Sequence[Values]) -> None:
    """Insert a few rows of the same columns by one statement."""
    if rows:
        _put(connection, "INSERT", table, rows)


def upsert(connection: DuckDBPyConnection, table: str, values: Values) -> None:
    """Insert a whole row, or replace the one of the same key.

    A transaction may have been committed although its process was killed before it was told.
    """
    _put(connection, "INSERT OR REPLACE", table, [values])


def _put(connection: DuckDBPyConnection, verb: str, table: str, rows: Sequence[Values]) -> None:
    columns = ", ".join(map(identifier, rows[0]))
    prefixes = [f"new{number}" for number in range(len(rows))]
    places = ", ".join(f"({', '.join(f'${prefix}_{name}' for name in rows[0])})" for prefix in prefixes)
    stored = {name: value for p, row in zip(prefixes, rows, strict=True) for name, value in _stored(row, p).items()}
    connection.execute(f"{verb} INTO {table} ({columns}) VALUES {places}", stored)


def update_rows(connection: DuckDBPyConnection, table: str, values: Values, *, where: Values) -> None:
    """Change the rows that have the values ``where``."""
    changes, known = ", ".join(_equal(values, "new")), " AND ".join(_equal(where, "old"))
    parameters = {**_stored(values, "new"), **_stored(where, "old")}
    connection.execute(f"UPDATE {table} SET {changes} WHERE {known}", parameters)


def delete_rows(connection: DuckDBPyConnection, table: str, where: Values) -> None:
    """Delete the rows that have these values."""
    connection.execute(f"DELETE FROM {table} WHERE {' AND '.join(_equal(where, 'old'))}", _stored(where, "old"))


def _equal(values: Values, prefix: str) -> list[str]:
    return [f"{identifier(name)} = ${prefix}_{name}" for name in values]


def _stored(values: Values, prefix: str) -> dict[str, Any]:
    """Return the parameters of a statement, named with a prefix: a column may have the name of a keyword."""
    return {f"{prefix}_{n}": json.dumps(value) if isinstance(value, dict) else value for n, value in values.items()}


@contextmanager
def registered_table(connection: DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    """Let queries on this connection read an Arrow table under a name."""
    connection.register(name, table)
    yield
    connection.unregister(name)  # not after an error: DuckDB would only report that the transaction is aborted


def fingerprint_query(table: str, columns: str = "*COLUMNS(*)") -> str:
    """Return the query for a `Fingerprint`, which reads every value of ``columns``.

    Args:
        table: its name, in quotes where it needs them, and what may follow it in a FROM clause.
        columns: separated by commas. Not the row as a whole: a column of the CSV may have the table's name.
    """
    return f"SELECT count(*), CAST(sum(CAST(hash({columns}) AS HUGEINT)) AS VARCHAR) FROM {table}"


def fingerprint(connection: DuckDBPyConnection, table: str, columns: str = "*COLUMNS(*)") -> Fingerprint:
    """Return the fingerprint of a table of the catalog; see `fingerprint_query`."""
    ((n_rows, hashes),) = connection.execute(fingerprint_query(table, columns)).fetchall()
    return n_rows, hashes
