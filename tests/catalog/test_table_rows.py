"""Rows of the catalog as values with types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple, get_type_hints

import pytest
import sqlalchemy as sa
from duckdb import DuckDBPyConnection

from featurestore.catalog import HeldCatalog, ModelRow, PartitionRow
from featurestore.catalog.schema import Base, Model, Partition, Variant
from featurestore.catalog.statements import upsert
from featurestore.catalog.table_rows import JSON, VariantRow, query_rows
from featurestore.storage import Root

MODEL = ModelRow(
    model_id="m",
    stage="fit_pca",
    variant="v",
    parent_id=None,
    generation=0,
    partial=False,
    path="p",
    checksum="c",
    n_bytes=2**40,
    n_images=1,
    summary={"ä": [1, {"b": None}]},
)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[DuckDBPyConnection]:
    with HeldCatalog(Root(tmp_path)) as catalog:
        catalog.migrate()
        with catalog.transaction() as connection:
            yield connection


@pytest.mark.parametrize(("row", "table"), [(PartitionRow, Partition), (ModelRow, Model), (VariantRow, Variant)])
def test_a_row_has_the_columns_of_its_table(row: type, table: type[Base]) -> None:
    columns = sa.inspect(table).local_table.columns
    assert [field.name for field in fields(row)] == [column.name for column in columns]
    kinds = get_type_hints(row)
    assert [type(None) in getattr(kinds[c.name], "__args__", ()) for c in columns] == [c.nullable for c in columns]


def test_the_columns_of_json_are_those_of_the_schema() -> None:
    columns = [column for table in Base.metadata.tables.values() for column in table.columns]
    assert {column.name for column in columns if isinstance(column.type, sa.JSON)} == JSON
    assert all(isinstance(column.type, sa.JSON) for column in columns if column.name in JSON)


def test_a_row_comes_back_as_it_was_recorded(connection: DuckDBPyConnection) -> None:
    other = replace(MODEL, model_id="n", parent_id="m", generation=1, summary={})
    for model in (MODEL, other):
        upsert(connection, "models", vars(model))
    assert query_rows(connection, ModelRow, "SELECT * FROM models ORDER BY model_id") == [MODEL, other]
    assert query_rows(connection, ModelRow, "SELECT * FROM models WHERE model_id = $id", {"id": "x"}) == []


def test_a_row_takes_the_columns_that_it_has_fields_for(connection: DuckDBPyConnection) -> None:
    class Size(NamedTuple):
        n_bytes: int
        path: str

    upsert(connection, "models", vars(MODEL))
    assert query_rows(connection, Size, "SELECT path, stage, n_bytes FROM models") == [Size(2**40, "p")]
