"""The table of the dataset's own columns, `DATASET_COLUMNS`, and how an ingest changes it.

Columns differ from dataset to dataset, so this table is not a SQLAlchemy model. It has the columns and types of the
newest dataset file: a column that leaves the dataset leaves the table.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from featurestore.catalog.statements import DATASET_COLUMNS, query_value, registered_table
from featurestore.dataset import TEXT, misfits
from featurestore.quoting import folded, identifier

KEYS = ("image_id", "chunk_id", "filename", "subset")


def retyped_columns(connection: duckdb.DuckDBPyConnection, dataset: pa.Table, incoming: Mapping[str, str]) -> list[str]:
    """Return a line for each of the store's columns that has another type in the dataset: ``incoming``."""
    spelt = {folded(name): name for name in dataset.column_names}
    retyped = {n: kind for n, kind in _columns(connection) if incoming.get(folded(n), kind) != kind}
    lost = {name: kind for name, kind in retyped.items() if incoming[folded(name)] == TEXT}
    examples = misfits({name: dataset[spelt[folded(name)]] for name in lost}, lost)
    lines = []
    for name, before in retyped.items():
        example = examples.get(name)
        why = f", since {example[:50]!r} would not come back from a {before} as it is written" if example else ""
        lines.append(f"{name} is {incoming[folded(name)]} now, and was {before}{why}")
    return lines


def departed_columns(connection: duckdb.DuckDBPyConnection, incoming: Mapping[str, str]) -> list[str]:
    """Return a line that lists the store's columns that left the dataset, ``incoming``; no line if none did."""
    names = [name for name, _ in _columns(connection) if folded(name) not in incoming]
    if not names:
        return []
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return [f"no longer in the dataset, and so in no view: {', '.join(names[:10])}{more}"]


def as_it_will_be(name: str, kind: str, is_known: bool) -> str:
    """Return SQL for the text of a stored column's values, after a cast to type ``kind``."""
    return f"CAST(TRY_CAST(d.{identifier(name)} AS {kind}) AS VARCHAR)" if is_known else "NULL"


def column_types(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Return DuckDB's types of the dataset's own columns, by their folded names, as the store has them."""
    return {folded(name): kind for name, kind in _columns(connection)}


def _columns(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    query = """SELECT column_name, data_type FROM duckdb_columns()
               WHERE table_name = $table AND column_name <> 'image_id' ORDER BY column_index"""
    return connection.execute(query, {"table": DATASET_COLUMNS}).fetchall()


def own_columns(connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> dict[str, str]:
    """Return DuckDB's types of the columns that are the dataset's own, by their folded names."""
    with registered_table(connection, "dataset_rows", rows.slice(0, 0)):
        found = connection.execute("DESCRIBE dataset_rows").fetchall()
    return {folded(name): kind for name, kind, *_ in found if name not in KEYS}


def store_columns(
    connection: duckdb.DuckDBPyConnection, added: pa.Table, changed: pa.Table, *, file_format: int
) -> None:
    """Update the table to the columns and rows of a dataset file."""
    run = connection.execute
    before = dict(_columns(connection))
    incoming = own_columns(connection, added)
    if file_format == 1:
        after = _widened(before, incoming, pa.concat_tables([added, changed]))
    else:
        after = {name: incoming[folded(name)] for name in before if folded(name) in incoming}
    have = {folded(name) for name in after}
    after |= {
        name: incoming[folded(name)] for name in added.column_names if name not in KEYS and folded(name) not in have
    }
    _reshape(connection, before, after)
    names = [name for name in after if folded(name) in incoming]
    with registered_table(connection, "added_rows", added), registered_table(connection, "changed_rows", changed):
        if names and len(changed):
            values = ", ".join(f"{identifier(name)} = CAST(c.{identifier(name)} AS {after[name]})" for name in names)
            run(
                f"UPDATE {DATASET_COLUMNS} SET {values} FROM changed_rows c "
                f"WHERE {DATASET_COLUMNS}.image_id = c.image_id"
            )
        columns = ", ".join(["image_id", *map(identifier, names)])
        run(f"INSERT INTO {DATASET_COLUMNS} BY NAME SELECT {columns} FROM added_rows")


def _widened(before: Mapping[str, str], incoming: Mapping[str, str], rows: pa.Table) -> dict[str, str]:
    """Return the columns by the rules of dataset format 1: none leaves, and two types give VARCHAR."""
    columns = zip(rows.column_names, rows.columns, strict=True)
    filled = {folded(name) for name, column in columns if column.null_count < len(column)}
    return {
        name: TEXT if folded(name) in filled and incoming[folded(name)] != kind else kind
        for name, kind in before.items()
    }


def _reshape(connection: duckdb.DuckDBPyConnection, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Change columns and types in one statement: an ALTER for each of 1,500 columns would take minutes."""
    run = connection.execute
    query = "SELECT count(*) FROM duckdb_tables() WHERE table_name = $table"
    if not query_value(connection, query, {"table": DATASET_COLUMNS}):
        columns = ", ".join(["image_id BIGINT", *(f"{identifier(name)} {kind}" for name, kind in after.items())])
        run(f"CREATE TABLE {DATASET_COLUMNS} ({columns})")
    elif after != before:
        values = [
            f"TRY_CAST({identifier(name) if name in before else 'NULL'} AS {kind}) AS {identifier(name)}"
            for name, kind in after.items()
        ]
        run(f"CREATE TABLE reshaped AS SELECT {', '.join(['image_id', *values])} FROM {DATASET_COLUMNS}")
        run(f"DROP TABLE {DATASET_COLUMNS}")
        run(f"ALTER TABLE reshaped RENAME TO {DATASET_COLUMNS}")
