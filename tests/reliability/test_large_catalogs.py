"""Catalogs that are larger than the memory that a check may take: what is honest is not called damaged."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.catalog import Fingerprint, HeldCatalog, fingerprint
from featurestore.errors import UnreadableFile
from featurestore.maintenance.sandbox import run_child
from featurestore.storage import CATALOG, Root
from tests.catalogs import change

LITTLE = 1 << 30  # bytes, of which Python, DuckDB and Arrow take two thirds


@pytest.fixture
def large(store: FeatureStore) -> FeatureStore:
    """A store whose tables take 1.2 GB in memory, and a few MB on the disk."""
    change(
        store.path,
        "INSERT INTO chunks SELECT CAST(range + 100 AS INTEGER), range, 1, repeat('x', 8000) FROM range(150_000)",
    )
    return store


@pytest.mark.usefixtures("cold_sandbox")
def test_a_catalog_that_does_not_fit_into_memory_is_read(large: FeatureStore, tmp_path: Path) -> None:
    run_child("salvage", large.path / CATALOG, tmp_path / "runs.parquet", memory=LITTLE)
    with duckdb.connect(large.path / CATALOG, read_only=True) as connection:
        assert len(pq.read_table(tmp_path / "runs.parquet")) == connection.sql("FROM runs").shape[0] > 0


@pytest.mark.usefixtures("cold_sandbox")
def test_no_memory_at_all_is_no_damage(finished: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="can't be read"):
        run_child("salvage", finished.path / CATALOG, tmp_path / "runs.parquet", memory=300 << 20)


def fingerprint_of(root: Root, values: str, columns: str = "*COLUMNS(*)") -> Fingerprint:
    with HeldCatalog(root) as catalog, catalog.reading() as connection:
        connection.execute(f"CREATE TABLE t AS FROM (VALUES {values}) v(t, u)")
        return fingerprint(connection, "t", columns)


def test_a_fingerprint_is_of_all_columns_whatever_they_are_called(tmp_path: Path) -> None:
    root = Root(tmp_path)
    found = fingerprint_of(root, "(1, 'a'), (2, NULL)")
    assert found[0] == 2
    assert fingerprint_of(root, "(2, NULL), (1, 'a')") == found
    assert fingerprint_of(root, "(1, 'b'), (2, NULL)") != found
    assert fingerprint_of(root, "(1, 'b'), (2, NULL)", "t") == fingerprint_of(root, "(1, 'a'), (2, NULL)", "t")
