"""Filenames of other programs, matched with the images of the store."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.catalog.statements import query_arrow, registered_table
from featurestore.catalog.table_rows import query_rows

# If several files have a name, the first one counts.
_MATCHED = """
SELECT n.file, i.image_id, i.chunk_id,
       i.image_id IS NOT NULL AND row_number() OVER (PARTITION BY i.image_id ORDER BY n.file, n.position) = 1 AS first
FROM names n LEFT JOIN images i ON i.filename = n.filename ORDER BY n.file, n.position
"""
_CHUNKS = """
SELECT chunk_id, count(*) FILTER (found) AS n_found, count(*) FILTER (lacks) AS n_missing,
       coalesce(list(filename ORDER BY image_id) FILTER (lacks)[1:$examples], []) AS examples,
       coalesce(map_from_entries(list((image_id, filename) ORDER BY image_id) FILTER (removed)), MAP {}) AS removed
FROM (SELECT i.*, m.image_id IS NOT NULL AS found, NOT found AND removed_by IS NULL AS lacks,
             NOT found AND removed_by IS NOT NULL AS removed
      FROM images i LEFT JOIN (SELECT DISTINCT image_id FROM matched) m ON m.image_id = i.image_id)
GROUP BY chunk_id HAVING n_found > 0 OR n_missing = 0 ORDER BY chunk_id
"""


@dataclass(frozen=True)
class FoundMembers:
    """A chunk with images that were matched, or of which every image has left the dataset."""

    chunk_id: int
    n_found: int
    n_missing: int  # images of the dataset without a match
    examples: list[str]  # filenames of some of them
    removed: dict[int, str] = field(default_factory=dict)  # images without a match that have left the dataset


def match_filenames(
    connection: DuckDBPyConnection, names: pa.Table, *, examples: int
) -> tuple[pa.Table, list[FoundMembers]]:
    """Match names with images, and return the chunks of these images too.

    Args:
        connection: to the catalog.
        names: ``file, position, filename`` of each name.
        examples: the number of unmatched images to list for each chunk.

    Returns:
        ``file, image_id, chunk_id, first`` of each name in the order of ``file`` and ``position``, where ``first`` is
        whether no earlier name matched the image; and the chunks in order.
    """
    with registered_table(connection, "names", names):
        matched = query_arrow(connection, _MATCHED)
        with registered_table(connection, "matched", matched):
            return matched, query_rows(connection, FoundMembers, _CHUNKS, {"examples": examples})
