"""The recorded images and chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import sqlalchemy as sa

from featurestore.catalog.catalog import query_arrow
from featurestore.catalog.connection import raw_connection
from featurestore.catalog.schema import DATASET_COLUMNS
from featurestore.catalog.table_rows import query_rows


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


def dataset_counts(connection: sa.Connection) -> DatasetCounts:
    """Count the images and chunks."""
    query = "SELECT subset, count(*) FROM images WHERE removed_by IS NULL GROUP BY 1 ORDER BY 1"
    subsets = connection.execute(sa.text(query)).all()
    n_removed = connection.execute(sa.text("SELECT count(*) FROM images WHERE removed_by IS NOT NULL")).scalar_one()
    n_chunks = connection.execute(sa.text("SELECT count(*) FROM chunks")).scalar_one()
    return DatasetCounts({str(name): int(n) for name, n in subsets}, int(n_removed), int(n_chunks))


def chunk_ids(connection: sa.Connection) -> set[int]:
    """Return the numbers of all chunks."""
    return set(query_arrow(connection, "SELECT chunk_id FROM chunks")["chunk_id"].to_pylist())


def find_image(connection: sa.Connection, image_id: int) -> ImageRow:
    """Return an existing image."""
    (found,) = query_rows(connection, ImageRow, "SELECT * FROM images WHERE image_id = $id", {"id": image_id})
    return found


def dataset_values(connection: sa.Connection, image_id: int) -> Any:
    """Return ``image_id`` and the dataset's own columns of an image, as a DuckDB relation of at most one row."""
    query = f"SELECT * FROM {DATASET_COLUMNS} WHERE image_id = $id"
    return raw_connection(connection).sql(query, params={"id": image_id})


def image_table(connection: sa.Connection) -> pa.Table:
    """Return ``image_id, chunk_id, filename, removed_by`` of every image, in the order of ``image_id``."""
    return query_arrow(connection, "SELECT image_id, chunk_id, filename, removed_by FROM images ORDER BY image_id")


def removed_ids(connection: sa.Connection) -> pa.Table:
    """Return the ``image_id`` of every image that has left the dataset."""
    return query_arrow(connection, "SELECT image_id FROM images WHERE removed_by IS NOT NULL")


def chunk_digests(connection: sa.Connection) -> dict[int, str]:
    """Return the digest of every chunk's image list, which is the input of extract."""
    found = query_arrow(connection, "SELECT chunk_id, digest FROM chunks")
    return dict(zip(found["chunk_id"].to_pylist(), found["digest"].to_pylist(), strict=True))


def chunk_sizes(connection: sa.Connection) -> list[int]:
    """Return the number of images of every chunk, in chunk order."""
    sizes: list[int] = query_arrow(connection, "SELECT n_images FROM chunks ORDER BY chunk_id")["n_images"].to_pylist()
    return sizes
