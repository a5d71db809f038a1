"""Records of files: list them, and delete them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import delete_rows, query_column, registered_table
from featurestore.catalog.table_rows import ModelRow, PartitionRow, query_rows


class RecordedFiles(NamedTuple):
    """The names of all recorded files, by kind."""

    datasets: frozenset[str]
    partitions: frozenset[str]
    models: frozenset[str]

    @property
    def every(self) -> frozenset[str]:
        """The names of all kinds together."""
        return self.datasets | self.partitions | self.models


class DatasetLogFile(NamedTuple):
    """A file of the dataset log."""

    path: str
    checksum: str  # SHA-256


def recorded_files(connection: DuckDBPyConnection) -> RecordedFiles:
    """Return the names of all recorded files."""
    tables = ("ingests", "partitions", "models")
    found = (query_column(connection, f"SELECT path FROM {table}") for table in tables)
    return RecordedFiles(*map(frozenset, found))


def dataset_log_files(connection: DuckDBPyConnection) -> list[DatasetLogFile]:
    """Return the files of the dataset log, in the order of the ingests."""
    return query_rows(connection, DatasetLogFile, "SELECT path, checksum FROM ingests ORDER BY ingest_id")


def forget_partitions(connection: DuckDBPyConnection, partitions: Iterable[PartitionRow]) -> None:
    """Delete the records of partitions, with their results of each image."""
    for row in partitions:
        key = {"stage": row.stage, "variant": row.variant, "chunk_id": row.chunk_id}
        delete_rows(connection, "partitions", key)
        delete_rows(connection, "results", key)


def forget_models(connection: DuckDBPyConnection, models: Iterable[ModelRow]) -> None:
    """Delete the records of models, with the images that they learnt from."""
    for row in models:
        delete_rows(connection, "models", {"model_id": row.model_id})
        delete_rows(connection, "training_images", {"model_id": row.model_id})


def record_etags(connection: DuckDBPyConnection, etags: Mapping[str, str | None]) -> None:
    """Record the ETags of partitions by their names; None of a file in the store's folder."""
    rows = pa.table({"path": pa.array(etags, pa.string()), "etag": pa.array(etags.values(), pa.string())})
    with registered_table(connection, "arrow_rows", rows):
        connection.execute(
            "UPDATE partitions SET etag = arrow_rows.etag FROM arrow_rows WHERE partitions.path = arrow_rows.path"
        )


def forget_unused_variants(connection: DuckDBPyConnection) -> None:
    """Delete the records of variants without a partition or a model."""
    left = "SELECT variant FROM partitions UNION SELECT variant FROM models"
    connection.execute(f"DELETE FROM variants WHERE variant NOT IN ({left})")


def forget_partition_file(connection: DuckDBPyConnection, name: str) -> None:
    """Delete the record of the partition ``name``, if there is one."""
    query = "SELECT * FROM partitions WHERE path = $name"
    forget_partitions(connection, query_rows(connection, PartitionRow, query, {"name": name}))


def forget_model_file(connection: DuckDBPyConnection, name: str) -> None:
    """Delete the record of the model ``name``, if there is one."""
    query = "SELECT * FROM models WHERE path = $name"
    forget_models(connection, query_rows(connection, ModelRow, query, {"name": name}))


class CatalogCounts(NamedTuple):
    """The number of rows of each kind in the catalog."""

    n_images: int
    n_partitions: int
    n_models: int
    n_runs: int


def catalog_counts(connection: DuckDBPyConnection) -> CatalogCounts:
    """Count the recorded images, partitions, models and runs."""
    (found,) = query_rows(
        connection,
        CatalogCounts,
        """SELECT (SELECT count(*) FROM images) AS n_images, (SELECT count(*) FROM partitions) AS n_partitions,
                  (SELECT count(*) FROM models) AS n_models, (SELECT count(*) FROM runs) AS n_runs""",
    )
    return found
