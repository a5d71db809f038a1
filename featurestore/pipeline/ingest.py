"""Ingest: the dataset's rows become images and chunks whose numbers never change.

Each ingest writes its added, changed and removed images to one file, ``dataset/000001.parquet``. Replaying these files
in order gives the catalog. A removed image keeps its number and its place in its chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from featurestore.catalog import (
    METADATA,
    REMOVED,
    STATUS,
    Catalog,
    WritableCatalog,
    column_types,
    dataset_counts,
    departed_columns,
    find_changed,
    find_moved,
    find_removed,
    ingest_counts,
    next_ingest,
    own_columns,
    replay,
    retyped_columns,
)
from featurestore.errors import ConfirmationNeeded
from featurestore.formatting import counted
from featurestore.notebook import Tabular
from featurestore.storage import Writer
from featurestore.system import IN_MEMORY, ROWS_TOGETHER, Spill

LOG = logging.getLogger("featurestore.pipeline")
MOST_REMOVED = 0.1  # share of the images that may leave the dataset without a question


@dataclass(frozen=True)
class IngestReport(Tabular):
    """The report of an ingest."""

    ingest_id: int | None  # None: the dataset is unchanged
    n_new: int
    n_changed: int  # including those that came back
    n_removed: int
    n_returned: int
    n_images: int  # in the dataset
    n_chunks: int
    subsets: dict[str, int]
    columns: tuple[str, ...] = ()  # a line for each column with a new type, and for columns that left
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
    """Record the dataset: new filenames get new ids in new chunks, known ones new values, missing ones are removed.

    Args:
        root: of the store.
        catalog: of the store.
        dataset: from `dataset.read_dataset` or `dataset.scan_folder`. Its columns, with their types, are those of the
            store from now on.
        chunk_size: images in a new chunk.
        computed: whether the subsets were computed from other columns, so that their types matter.
        confirm: asked before more than a tenth of the images are removed, and before a changed column type moves
            known images into another subset.
        spill: holds rows on disk that would need much memory.

    Raises:
        ConfirmationNeeded: it did not agree. Nothing was written.
    """
    with catalog.reading() as connection, spill.bounding(connection, columns=dataset.num_columns):
        known, own = column_types(connection), own_columns(connection, dataset)
        retyped = retyped_columns(connection, dataset, own)
        if retyped and computed:
            _ask_to_move(connection, dataset, retyped, confirm)
        lines = (*retyped, *departed_columns(connection, own))
        delta = find_changed(connection, dataset, known, own, chunk_size, spill)
        removed, n_returned = _removed(connection, dataset, confirm)
        is_changed = bool(len(delta) or len(removed) or lines or set(own) != set(known))
        number = next_ingest(connection)
    if len(removed):
        delta = _with_removed(delta, removed)
    if is_changed:
        name = f"dataset/{number:06d}.parquet"
        with root.publishing(name) as temporary:
            # For a rebuild: the checksum of the whole file is lost with the catalog.
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


def _removed(connection: DuckDBPyConnection, dataset: pa.Table, confirm: Callable[[str], bool]) -> tuple[pa.Table, int]:
    """Return the images that have left the dataset, and how many have come back to it."""
    removed, n_returned, n_images = find_removed(connection, dataset)
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
    """Return the rows of both in ``image_id`` order; the column ``status`` marks removed ones."""
    delta = delta.append_column(STATUS, pa.nulls(len(delta), pa.string()))
    removed = removed.append_column(STATUS, pa.repeat(REMOVED, len(removed)))
    return pa.concat_tables([delta, removed], promote_options="default").sort_by("image_id")


def _ask_to_move(
    connection: DuckDBPyConnection, dataset: pa.Table, retyped: Sequence[str], confirm: Callable[[str], bool]
) -> None:
    """Ask before a changed column type, rather than the dataset's author, moves images between train and test."""
    n, filename, before, after = find_moved(connection, dataset)
    if not n:
        return
    question = (
        f"{'; '.join(retyped)}: with that, {counted(n, 'known image')} would change the subset, for example {filename} "
        f"from {before} to {after}"
    )
    if not confirm(question):
        raise ConfirmationNeeded(f"{question}. Correct the dataset or the split, or agree with --yes")


def _report(catalog: Catalog, ingest_id: int | None, n_returned: int, columns: tuple[str, ...]) -> IngestReport:
    with catalog.reading() as connection:
        dataset, done = dataset_counts(connection), ingest_counts(connection, ingest_id)
    size = f"{counted(dataset.n_images, 'image')} in {counted(dataset.n_chunks, 'chunk')}"
    LOG.info("ingest: %d new, %d changed, %d removed; %s", done.n_new, done.n_changed, done.n_removed, size)
    return IngestReport(
        ingest_id,
        n_new=done.n_new,
        n_changed=done.n_changed,
        n_removed=done.n_removed,
        n_returned=n_returned,
        n_images=dataset.n_images,
        n_chunks=dataset.n_chunks,
        subsets=dataset.subsets,
        columns=columns,
    )
