"""The recorded partitions."""

from __future__ import annotations

from typing import Any, NamedTuple

from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import query_column, query_pairs
from featurestore.catalog.steps import Step
from featurestore.catalog.table_rows import PartitionRow, query_rows
from featurestore.storage import Origin


def count_by_variant(connection: DuckDBPyConnection, stage: str) -> dict[str, int]:
    """Return the number of partitions of each variant of a stage, the most frequent first."""
    query = "SELECT variant, count(*) AS n FROM partitions WHERE stage = $stage GROUP BY 1 ORDER BY n DESC, variant"
    return query_pairs(connection, query, {"stage": stage})


def bytes_per_image(connection: DuckDBPyConnection) -> dict[str, float]:
    """Return the mean bytes of an image, by stage."""
    query = "SELECT stage, sum(n_bytes) / sum(n_images) AS size FROM partitions WHERE NOT pruned GROUP BY stage"
    return query_pairs(connection, query)


class _Versions(NamedTuple):
    versions: dict[str, str]


def imported_versions(connection: DuckDBPyConnection, variant: str | None) -> list[dict[str, Any]]:
    """Return the distinct library versions in the manifests of a variant's imported partitions."""
    query = f"SELECT DISTINCT versions FROM partitions WHERE variant = $variant AND origin = '{Origin.NPZ}'"
    return [row.versions for row in query_rows(connection, _Versions, query, {"variant": variant})]


def partitions_of(connection: DuckDBPyConnection, step: Step) -> list[PartitionRow]:
    """Return the partitions of a variant of a stage, pruned ones too, in the order of the chunks."""
    query = "SELECT * FROM partitions WHERE stage = $stage AND variant = $variant ORDER BY chunk_id"
    return query_rows(connection, PartitionRow, query, {"stage": step.stage.name, "variant": step.variant})


def all_partitions(connection: DuckDBPyConnection) -> list[PartitionRow]:
    """Return all partitions, by stage, variant and chunk."""
    return query_rows(connection, PartitionRow, "SELECT * FROM partitions ORDER BY stage, variant, chunk_id")


def has_partition(connection: DuckDBPyConnection, *, stage: str, variant: str, chunk_id: int) -> bool:
    """Return whether a chunk has a recorded partition."""
    query = "SELECT 1 FROM partitions WHERE stage = $stage AND variant = $variant AND chunk_id = $chunk_id"
    return bool(query_column(connection, query, {"stage": stage, "variant": variant, "chunk_id": chunk_id}))


def has_partitions(connection: DuckDBPyConnection, variant: str) -> bool:
    """Return whether a variant has a partition."""
    return bool(query_column(connection, "SELECT 1 FROM partitions WHERE variant = $v LIMIT 1", {"v": variant}))
