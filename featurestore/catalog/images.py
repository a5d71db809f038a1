"""The recorded images and chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import DATASET_COLUMNS, query_arrow, query_column, query_pairs, query_value
from featurestore.catalog.table_rows import query_row


@dataclass(frozen=True)
class ImageRow:
    """A row of `schema.Image`."""

    image_id: int
    chunk_id: int
    filename: str
    subset: str
    removed_by: int | None


class DatasetCounts(NamedTuple):
    """The size of the dataset."""

    subsets: dict[str, int]  # images in the dataset, by subset
    n_removed: int  # images that have left it
    n_chunks: int

    @property
    def n_images(self) -> int:
        """The number of images in the dataset."""
        return sum(self.subsets.values())


def dataset_counts(connection: DuckDBPyConnection) -> DatasetCounts:
    """Count the images and chunks."""
    query = "SELECT subset, count(*) FROM images WHERE removed_by IS NULL GROUP BY 1 ORDER BY 1"
    subsets = connection.execute(query).fetchall()
    n_removed = query_value(connection, "SELECT count(*) FROM images WHERE removed_by IS NOT NULL")
    n_chunks = query_value(connection, "SELECT count(*) FROM chunks")
    return DatasetCounts({str(name): int(n) for name, n in subsets}, int(n_removed), int(n_chunks))


def chunk_ids(connection: DuckDBPyConnection) -> set[int]:
    """Return the numbers of all chunks."""
    return set(query_column(connection, "SELECT chunk_id FROM chunks"))


def find_image(connection: DuckDBPyConnection, filename: str) -> ImageRow | None:
    """Return the image of this name, which may have left the dataset, or None."""
    return query_row(connection, ImageRow, "SELECT * FROM images WHERE filename = $filename", {"filename": filename})


def dataset_values(connection: DuckDBPyConnection, image_id: int) -> Any:
    """Return ``image_id`` and the dataset's own columns of an image, as a DuckDB relation of at most one row."""
    query = f"SELECT * FROM {DATASET_COLUMNS} WHERE image_id = $id"
    return connection.sql(query, params={"id": image_id})


def image_table(connection: DuckDBPyConnection) -> pa.Table:
    """Return ``image_id, chunk_id, filename, removed_by`` of every image, in the order of ``image_id``."""
    return query_arrow(connection, "SELECT image_id, chunk_id, filename, removed_by FROM images ORDER BY image_id")


def removed_ids(connection: DuckDBPyConnection) -> pa.Table:
    """Return the ``image_id`` of every image that has left the dataset."""
    return query_arrow(connection, "SELECT image_id FROM images WHERE removed_by IS NOT NULL")


def chunk_digests(connection: DuckDBPyConnection) -> dict[int, str]:
    """Return the digest of every chunk's image list, which is the input of extract."""
    return query_pairs(connection, "SELECT chunk_id, digest FROM chunks")


def chunk_sizes(connection: DuckDBPyConnection) -> list[int]:
    """Return the number of images of every chunk, in chunk order."""
    return query_column(connection, "SELECT n_images FROM chunks ORDER BY chunk_id")
