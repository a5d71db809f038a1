"""Results of single images at each stage, without the descriptors."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import query_arrow, query_tuples, query_value
from featurestore.catalog.table_rows import PartitionRow, query_rows
from featurestore.rows import USABLE_SQL


class ImageResult(NamedTuple):
    """The result of one variant of a stage for an image."""

    stage: str
    variant: str
    status: str
    error: str | None
    n_descriptors: int
    model_id: str | None  # the model that was used
    partition: str | None  # its file, below the store; None for one that was pruned


_OF_IMAGE = """
SELECT r.stage, r.variant, r.status, r.error, r.n_descriptors, v.model_id,
       CASE WHEN p.pruned THEN NULL ELSE p.path END AS partition
FROM results r LEFT JOIN variants v ON v.variant = r.variant
LEFT JOIN partitions p ON p.stage = r.stage AND p.variant = r.variant AND p.chunk_id = r.chunk_id
WHERE r.image_id = $id ORDER BY r.stage, r.variant
"""


def results_of_image(connection: DuckDBPyConnection, image_id: int) -> list[ImageResult]:
    """Return the results of an image at every variant of every stage."""
    return query_rows(connection, ImageResult, _OF_IMAGE, {"id": image_id})


def descriptor_numbers(connection: DuckDBPyConnection, stage: str, variant: str) -> pa.Table:
    """Return ``image_id, n_descriptors`` of every image that a variant of a stage has, in the order of ``image_id``."""
    query = "SELECT image_id, n_descriptors FROM results WHERE stage = $stage AND variant = $variant ORDER BY image_id"
    return query_arrow(connection, query, {"stage": stage, "variant": variant})


def count_usable(connection: DuckDBPyConnection, variant: str | None) -> int:
    """Return the number of images that a variant of extract could use."""
    query = f"SELECT count(*) FROM results WHERE variant = $variant AND status IN {USABLE_SQL}"
    return int(query_value(connection, query, {"variant": variant}))


def results_of_partition(connection: DuckDBPyConnection, row: PartitionRow) -> list[dict[str, Any]]:
    """Return ``image_id, status, error, n_descriptors, pixels`` of the images of a partition, by ``image_id``."""
    query = """SELECT image_id, status, error, n_descriptors, pixels FROM results
               WHERE stage = $stage AND variant = $variant AND chunk_id = $chunk_id ORDER BY image_id"""
    key = {"stage": row.stage, "variant": row.variant, "chunk_id": row.chunk_id}
    names, rows = query_tuples(connection, query, key)
    return [dict(zip(names, values, strict=True)) for values in rows]
