"""Ingest: from the dataset's rows to images and chunks that never change their numbers.

What an ingest added, changed or removed is one file, ``dataset/000001.parquet``. The file is the truth; the catalog
follows from replaying these files in order. A removed image keeps its number and its place in its chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from featurestore.catalog import (
    DATASET_COLUMNS,
    KEYS,
    METADATA,
    REMOVED,
    STATUS,
    Catalog,
    WritableCatalog,
    as_it_will_be,
    column_types,
    departed_columns,
    own_columns,
    query_arrow,
    raw_connection,
    registered_table,
    replay,
    retyped_columns,
)
from featurestore.errors import ConfirmationNeeded
from featurestore.formatting import counted
from featurestore.quoting import folded, identifier
from featurestore.storage import Writer
from featurestore.system import IN_MEMORY, ROWS_TOGETHER, Spill

LOG = logging.getLogger("featurestore.pipeline")
MOST_REMOVED = 0.1  # of the images: beyond, an ingest asks


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did."""

    ingest_id: int | None  # None: nothing was new or changed
    n_new: int
    n_changed: int  # those that came back included
    n_removed: int
    n_returned: int
    n_images: int  # in the dataset
    n_chunks: int
    subsets: dict[str, int]
    columns: tuple[str, ...] = ()  # a line for each column that has another type now, or has left
    warnings: list[str] = field(default_factory=list)


def ingest_rows(
    root: Writer,
    catalog: WritableCatalog,
    dataset: pa.Table,
    *,
    chunk_size: int,
    computed: bool = False,
    confirm: Callable[[str], bool] = lambda question: False,
    spill: Spill = IN_MEMORY,
) -> IngestReport:
    """Take over the dataset: new filenames get new ids in new chunks, known ones their new values, others are removed.

    Args:
        root: of the store.
        catalog: of the store.
        dataset: from `dataset.read_dataset` or `dataset.scan_folder`. Its columns, with their types, are those of the
            store from now on.
        chunk_size: images in a new chunk.
        computed: whether the subsets were computed from other columns, so that their types matter.
        confirm: is asked before more than a tenth of the images are removed, and before columns of other types move
            known images into other subsets.
        spill: where rows go that would need much memory.

    Raises:
        ConfirmationNeeded: it did not agree. Nothing was written.
    """
    with catalog.reading() as connection, spill.bounding(raw_connection(connection), columns=dataset.num_columns):
        known = column_types(connection)
        retyped = retyped_columns(connection, dataset)
        if retyped and computed:
            _ask_to_move(connection, dataset, retyped, confirm)
        lines = (*retyped, *departed_columns(connection, dataset))
        delta = _delta(connection, dataset, known, chunk_size, spill)
        removed, n_returned = _removed(connection, dataset, confirm)
        number = connection.execute(sa.text("SELECT coalesce(max(ingest_id), 0) + 1 FROM ingests")).scalar_one()
    if len(removed):
        delta = _with_removed(delta, removed)
    is_changed = bool(len(delta) or lines or set(own_columns(dataset)) != set(known))
    if is_changed:
        name = f"dataset/{number:06d}.parquet"
        with root.publishing(name) as temporary:
            # The checksums are of use when the catalog, which has one of the whole file, is lost.
            pq.write_table(
                delta.replace_schema_metadata(METADATA),
                temporary,
                row_group_size=ROWS_TOGETHER,
                compression="zstd",
                write_page_checksum=True,
            )
        del delta
        replay(root, catalog, name, spill)
    return _report(catalog, number if is_changed else None, n_returned, lines)


def _removed(connection: sa.Connection, dataset: pa.Table, confirm: Callable[[str], bool]) -> tuple[pa.Table, int]:
    """Return the images that have left the dataset, and how many have come back to it."""
    with registered_table(connection, "incoming", dataset.select(["filename"])):
        query = f"""SELECT {", ".join(KEYS)} FROM images ANTI JOIN incoming USING (filename)
                    WHERE removed_by IS NULL ORDER BY image_id"""
        removed = query_arrow(connection, query)
        query = "SELECT count(*) FROM images SEMI JOIN incoming USING (filename) WHERE removed_by IS NOT NULL"
        n_returned = connection.execute(sa.text(query)).scalar_one()
    n_images = connection.execute(sa.text("SELECT count(*) FROM images WHERE removed_by IS NULL")).scalar_one()
    if len(removed) > MOST_REMOVED * n_images:
        question = (
            f"the dataset has no row for {len(removed):,} of the {counted(n_images, 'image')}, for example "
            f"{removed['filename'][0].as_py()!r}: they would leave the views, loading and later fits, and come back "
            "with their rows; nothing that was computed is deleted"
        )
        if not confirm(question):
            raise ConfirmationNeeded(f"{question}. Agree with --yes")
    return removed, n_returned


def _with_removed(delta: pa.Table, removed: pa.Table) -> pa.Table:
    """Return the rows of both in ``image_id`` order, told apart by the column ``status``."""
    delta = delta.append_column(STATUS, pa.nulls(len(delta), pa.string()))
    removed = removed.append_column(STATUS, pa.repeat(REMOVED, len(removed)))
    return pa.concat_tables([delta, removed], promote_options="default").sort_by("image_id")


def new_filenames(catalog: Catalog, dataset: pa.Table, most: int) -> list[str]:
    """Return the first filenames of the dataset that the catalog does not know."""
    incoming = pa.table({"filename": dataset["filename"], "position": pa.arange(0, len(dataset))})
    with catalog.reading() as connection, registered_table(connection, "incoming", incoming):
        query = f"SELECT filename FROM incoming ANTI JOIN images USING (filename) ORDER BY position LIMIT {most}"
        names: list[str] = query_arrow(connection, query)["filename"].to_pylist()
    return names


def _ask_to_move(
    connection: sa.Connection, dataset: pa.Table, retyped: Sequence[str], confirm: Callable[[str], bool]
) -> None:
    """Ask before another type of a column, and not the dataset's author, moves images between train and test."""
    with registered_table(connection, "incoming", dataset.select(["filename", "subset"])):
        n, filename, before, after = connection.execute(
            sa.text(
                """SELECT count(*), min(i.filename), arg_min(i.subset, i.filename), arg_min(t.subset, t.filename)
                FROM incoming t JOIN images i ON i.filename = t.filename WHERE t.subset <> i.subset"""
            )
        ).one()
    if not n:
        return
    question = (
        f"{'; '.join(retyped)}: with that, {counted(n, 'known image')} would change the subset, for example {filename} "
        f"from {before} to {after}"
    )
    if not confirm(question):
        raise ConfirmationNeeded(f"{question}. Correct the dataset or the split, or agree with --yes")


def _delta(
    connection: sa.Connection, dataset: pa.Table, known: Mapping[str, str], chunk_size: int, spill: Spill
) -> pa.Table:
    """Return the rows that are new or changed, with their ids, in ``image_id`` order."""
    own = own_columns(dataset)
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
        with registered_table(connection, "numbered", spill.table(raw_connection(connection).sql(query))):
            query = f"""SELECT k.image_id, k.chunk_id, t.filename, t.subset {columns}
                        FROM numbered k JOIN incoming t ON t.{position} = k.position ORDER BY 1"""
            return spill.table(raw_connection(connection).sql(query))


def _report(catalog: Catalog, ingest_id: int | None, n_returned: int, columns: tuple[str, ...]) -> IngestReport:
    with catalog.reading() as connection:
        query = "SELECT subset, count(*) FROM images WHERE removed_by IS NULL GROUP BY 1 ORDER BY 1"
        subsets = connection.execute(sa.text(query)).all()
        n_chunks = connection.execute(sa.text("SELECT count(*) FROM chunks")).scalar_one()
        query = """SELECT n_new, n_changed, (SELECT count(*) FROM images WHERE removed_by = ingest_id)
                   FROM ingests WHERE ingest_id = :id"""
        done = connection.execute(sa.text(query), {"id": ingest_id or -1}).all()
    n_new, n_changed, n_removed = done[0] if done else (0, 0, 0)
    counts = {str(name): int(n) for name, n in subsets}
    n_images = sum(counts.values())
    LOG.info(
        "ingest: %d new, %d changed, %d removed; %d images in %d chunks",
        n_new,
        n_changed,
        n_removed,
        n_images,
        n_chunks,
    )
    return IngestReport(
        ingest_id, n_new, n_changed, n_removed, n_returned, n_images, n_chunks, subsets=counts, columns=columns
    )
