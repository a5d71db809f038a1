"""A dataset compared with the images that are recorded: what is new, changed, removed or moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.catalog.dataset_columns import KEYS, as_it_will_be
from featurestore.catalog.statements import DATASET_COLUMNS, query_arrow, query_column, query_value, registered_table
from featurestore.quoting import folded, identifier
from featurestore.system import Spill


class Removals(NamedTuple):
    """The images that have left the dataset."""

    images: pa.Table  # `KEYS` of each, in ``image_id`` order
    n_returned: int  # images that are back in the dataset
    n_images: int  # images that were in it before


class Moved(NamedTuple):
    """Images whose subset has changed."""

    n: int
    filename: str | None  # of the first such image
    before: str | None  # its subset
    after: str | None


class IngestCounts(NamedTuple):
    """The counts of an ingest."""

    n_new: int = 0
    n_changed: int = 0
    n_removed: int = 0


def find_removed(connection: DuckDBPyConnection, dataset: pa.Table) -> Removals:
    """Return the images whose row has left the dataset."""
    with registered_table(connection, "incoming", dataset.select(["filename"])):
        query = f"""SELECT {", ".join(KEYS)} FROM images ANTI JOIN incoming USING (filename)
                    WHERE removed_by IS NULL ORDER BY image_id"""
        removed = query_arrow(connection, query)
        query = "SELECT count(*) FROM images SEMI JOIN incoming USING (filename) WHERE removed_by IS NOT NULL"
        n_returned = query_value(connection, query)
    n_images = query_value(connection, "SELECT count(*) FROM images WHERE removed_by IS NULL")
    return Removals(removed, n_returned, n_images)


def find_moved(connection: DuckDBPyConnection, dataset: pa.Table) -> Moved:
    """Count the known images whose subset differs in the dataset."""
    query = """SELECT count(*), min(i.filename), arg_min(i.subset, i.filename), arg_min(t.subset, t.filename)
               FROM incoming t JOIN images i ON i.filename = t.filename WHERE t.subset <> i.subset"""
    with registered_table(connection, "incoming", dataset.select(["filename", "subset"])):
        ((n, filename, before, after),) = connection.execute(query).fetchall()
    return Moved(n, filename, before, after)


def new_filenames(connection: DuckDBPyConnection, dataset: pa.Table, most: int) -> list[str]:
    """Return the first filenames of the dataset that are new to the catalog."""
    incoming = pa.table({"filename": dataset["filename"], "position": pa.arange(0, len(dataset))})
    with registered_table(connection, "incoming", incoming):
        query = f"SELECT filename FROM incoming ANTI JOIN images USING (filename) ORDER BY position LIMIT {most}"
        return query_column(connection, query)


def find_changed(
    connection: DuckDBPyConnection,
    dataset: pa.Table,
    known: Mapping[str, str],
    own: Mapping[str, str],
    chunk_size: int,
    spill: Spill,
) -> pa.Table:
    """Return the rows that are new or changed, with their ids, in ``image_id`` order.

    Args:
        connection: to the catalog.
        dataset: the rows that were read.
        known: types of the store's own columns, by their folded names.
        own: those of the dataset.
        chunk_size: images in a new chunk.
        spill: holds rows on disk that would need much memory.
    """
    extra = [name for name in dataset.column_names if name not in KEYS]
    # Two lists, and not a comparison for each of 3,000 columns: DuckDB's expressions may be 1,000 deep.
    now = ", ".join(["t.subset", *(f"CAST(t.{identifier(n)} AS VARCHAR)" for n in extra)])
    then = ", ".join(["i.subset", *(as_it_will_be(n, own[folded(n)], folded(n) in known) for n in extra)])
    columns = "".join(f", t.{identifier(n)}" for n in extra)
    stored = f"LEFT JOIN {DATASET_COLUMNS} d ON d.image_id = i.image_id" if known else ""
    position = "position"
    while position in map(folded, dataset.column_names):
        position += "_"
    positions = pa.arange(0, len(dataset))
    with registered_table(connection, "incoming", dataset.append_column(position, positions)):
        # The rows are chosen by columns of ours only: the CSV's can have any name.
        query = f"""
            WITH chosen AS (
                SELECT t.{position} AS position, i.image_id AS known_id, i.chunk_id AS known_chunk,
                       row_number() OVER (PARTITION BY i.image_id IS NULL ORDER BY t.{position}) - 1 AS n
                FROM incoming t LEFT JOIN images i ON i.filename = t.filename {stored}
                WHERE i.image_id IS NULL OR i.removed_by IS NOT NULL OR [{now}] IS DISTINCT FROM [{then}]
            )
            SELECT position, coalesce(known_id, (SELECT coalesce(max(image_id) + 1, 0) FROM images) + n) AS image_id,
                   CAST(coalesce(known_chunk,
                                 (SELECT coalesce(max(chunk_id) + 1, 0) FROM chunks) + n // {chunk_size})
                        AS INTEGER) AS chunk_id
            FROM chosen
            """
        with registered_table(connection, "numbered", spill.table(connection.sql(query))):
            query = f"""SELECT k.image_id, k.chunk_id, t.filename, t.subset {columns}
                        FROM numbered k JOIN incoming t ON t.{position} = k.position ORDER BY 1"""
            return spill.table(connection.sql(query))


def next_ingest(connection: DuckDBPyConnection) -> int:
    """Return the number that the next ingest will have."""
    return int(query_value(connection, "SELECT coalesce(max(ingest_id), 0) + 1 FROM ingests"))


def ingest_counts(connection: DuckDBPyConnection, ingest_id: int | None) -> IngestCounts:
    """Return the counts of an ingest; zeros for None."""
    query = """SELECT n_new, n_changed, (SELECT count(*) FROM images WHERE removed_by = ingest_id)
               FROM ingests WHERE ingest_id = $id"""
    done = connection.execute(query, {"id": ingest_id or -1}).fetchall()
    return IngestCounts(*done[0]) if done else IngestCounts()
