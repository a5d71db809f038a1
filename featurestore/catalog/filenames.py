"""Filenames of images, by chunk and by ``image_id``."""

from __future__ import annotations

from collections.abc import Sequence

from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import query_column, query_pairs
from featurestore.rows import USABLE_SQL
from featurestore.stages import Extract
from featurestore.storage import Origin

# Imported descriptors do not prove that an image was in the folder.
_SOME_READ = f"""
SELECT image_id FROM (
    SELECT r.image_id FROM results r SEMI JOIN partitions p
    ON p.stage = r.stage AND p.variant = r.variant AND p.chunk_id = r.chunk_id AND p.origin = '{Origin.RUN}'
    WHERE r.stage = $stage AND r.status IN {USABLE_SQL}
) USING SAMPLE reservoir(8 ROWS) REPEATABLE (1)
"""


def files_read_before(connection: DuckDBPyConnection) -> dict[int, str]:
    """Return a sample of filenames that earlier runs have read."""
    return filenames_of(connection, query_column(connection, _SOME_READ, {"stage": Extract.name}))


def filenames_of(connection: DuckDBPyConnection, images: Sequence[int]) -> dict[int, str]:
    """Return filenames by ``image_id``; unknown ids are left out."""
    query = "SELECT image_id, filename FROM images WHERE list_contains($images, image_id)"
    return query_pairs(connection, query, {"images": images})


def filenames_of_chunks(connection: DuckDBPyConnection, chunks: Sequence[int]) -> dict[int, str]:
    """Return the filenames of the chunks' images, by ``image_id``."""
    query = "SELECT image_id, filename FROM images WHERE list_contains($chunks, chunk_id)"
    return query_pairs(connection, query, {"chunks": chunks})


def filenames_of_chunk(connection: DuckDBPyConnection, chunk_id: int) -> list[str]:
    """Return the filenames of a chunk, in the order of the images."""
    query = "SELECT filename FROM images WHERE chunk_id = $chunk ORDER BY image_id"
    return query_column(connection, query, {"chunk": chunk_id})
