"""The images of two stores compared, in SQL: there may be millions."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import query_arrow, query_value, registered_table
from featurestore.catalog.table_rows import query_rows

# Images that differ between the stores. The subset of a removed image does not matter.
_DIFFERENT = """
SELECT o.image_id, o.filename, o.subset, o.chunk_id, t.filename AS their_filename, t.subset AS their_subset,
       t.chunk_id AS their_chunk_id, count(*) OVER () AS n,
       count(*) FILTER (WHERE o.filename <> t.filename OR o.subset <> t.subset) OVER () AS n_others
FROM images o JOIN theirs t ON t.image_id = o.image_id
WHERE o.filename <> t.filename OR o.chunk_id <> t.chunk_id
   OR (o.subset <> t.subset AND o.removed_by IS NULL AND t.removed_by IS NULL)
ORDER BY o.image_id
"""
_REMOVALS = """
SELECT count(*) FILTER (WHERE o.removed_by IS NOT NULL AND t.removed_by IS NULL) AS n_here,
       count(*) FILTER (WHERE o.removed_by IS NULL AND t.removed_by IS NOT NULL) AS n_there
FROM images o JOIN theirs t ON t.image_id = o.image_id
"""


class ImageDifference(NamedTuple):
    """An image that differs between the stores, and the number of such images."""

    image_id: int
    filename: str
    subset: str
    chunk_id: int
    their_filename: str
    their_subset: str
    their_chunk_id: int
    n: int  # images that differ
    n_others: int  # of these, those that differ in more than their chunk


class Removals(NamedTuple):
    """The number of images that have left the dataset of only one store."""

    n_here: int
    n_there: int


class Comparison(NamedTuple):
    """The differences between the images of two stores."""

    n_here: int  # images, removed ones included
    n_there: int
    differences: list[ImageDifference]  # the first of them
    removals: Removals


def list_images(connection: DuckDBPyConnection) -> pa.Table:
    """Return the images of a store, for `compare_images`."""
    return query_arrow(connection, "SELECT image_id, chunk_id, filename, subset, removed_by FROM images")


def compare_images(connection: DuckDBPyConnection, theirs: pa.Table, *, most: int) -> Comparison:
    """Compare the images of this store with those of another.

    Args:
        connection: to the catalog of this store.
        theirs: from `list_images`, of the other.
        most: differences to return.
    """
    with registered_table(connection, "theirs", theirs):
        n_images = query_value(connection, "SELECT count(*) FROM images")
        differences = query_rows(connection, ImageDifference, f"{_DIFFERENT} LIMIT {most}")
        (removals,) = query_rows(connection, Removals, _REMOVALS)
    return Comparison(int(n_images), len(theirs), differences, removals)
