"""The dataset log: each ingest is one file, `dataset/000001.parquet`, and the catalog follows from replaying them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from featurestore.arrow_arrays import arrow_column, numpy_array
from featurestore.catalog.catalog import WritableCatalog
from featurestore.catalog.dataset_columns import (
    KEYS,
    store_columns,
)
from featurestore.catalog.statements import insert_arrow, query_value, registered_table, upsert
from featurestore.errors import CorruptFile, FormatError
from featurestore.storage import Root, parse_manifest
from featurestore.system import IN_MEMORY, ROWS_TOGETHER, Spill, file_digest, readable

KINDS = {"image_id": pa.int64(), "chunk_id": pa.int32(), "filename": pa.string(), "subset": pa.string()}


FORMAT = 2  # of a dataset file. In format 1 no image and no column leaves, and types only widen.


METADATA = {"featurestore": json.dumps({"format": FORMAT, "kind": "dataset"})}


STATUS = "status"  # the column that marks removed images; no CSV column has this name


REMOVED = "removed"


def replay(root: Root, catalog: WritableCatalog, name: str, spill: Spill = IN_MEMORY) -> None:
    """Replay the dataset file ``name`` into the catalog, in one transaction.

    Raises:
        CorruptFile: the file is damaged, or does not follow the ones before it.
        UnreadableFile: it can't be opened or read.
        FormatError: it was written by a newer version.
    """
    path = root.local(name)
    delta, file_format = _read(path, name, spill)
    number = int(path.stem)
    with (
        catalog.transaction() as connection,
        spill.bounding(
            connection,
            columns=delta.num_columns,
            indexed=(first_new := _next_image(connection)) + len(delta),
        ),
    ):
        n_known = int(np.count_nonzero(numpy_array(delta["image_id"]) < first_new))
        known, added = delta.slice(0, n_known), delta.slice(n_known)
        changed, removed = _split(known, name, spill)
        next_chunk = query_value(connection, "SELECT coalesce(max(chunk_id) + 1, 0) FROM chunks")
        _check_new(added, name, first_new=first_new, next_chunk=next_chunk)
        added = added.select(changed.column_names)
        insert_arrow(connection, "images", added.select(KEYS))
        insert_arrow(connection, "chunks", _chunks_of(added))
        _update_images(connection, changed, removed, number)
        store_columns(connection, added, changed, file_format=file_format)
        values = {"path": name, "checksum": file_digest(path), "n_new": len(added), "n_changed": len(changed)}
        upsert(connection, "ingests", {"ingest_id": number, **values})


def _next_image(connection: DuckDBPyConnection) -> int:
    return int(query_value(connection, "SELECT coalesce(max(image_id) + 1, 0) FROM images"))


def _read(path: Path, name: str, spill: Spill) -> tuple[pa.Table, int]:
    try:
        with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = parse_manifest((file.metadata.metadata or {}).get(b"featurestore", b"")).get("format")
            batches = file.iter_batches(ROWS_TOGETHER)
            delta = spill.keep(batches, file.schema_arrow) if found in (1, FORMAT) else None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise CorruptFile(f"{name} can't be read ({' '.join(str(error).split())}); put back a copy of it") from error
    if delta is None or found is None:
        raise FormatError(f"{name} is of format {found}, and this version knows {FORMAT}; use a newer featurestore")
    for column, kind in KINDS.items():
        if column not in delta.column_names or delta[column].type != kind or delta[column].null_count:
            raise CorruptFile(f"{name} has no column {column} of {kind} in every row; put back a copy of it")
    return delta, int(found)


def _split(known: pa.Table, name: str, spill: Spill) -> tuple[pa.Table, pa.Table]:
    """Return the rows of known images in the dataset, without ``status``, and those of removed images."""
    if STATUS not in known.column_names:
        return known, known.slice(0, 0)
    status = known[STATUS]
    if status.type == pa.string():
        gone = pc.fill_null(pc.equal(status, REMOVED), False)
        kept = spill.filter(known.drop_columns([STATUS]), pc.invert(gone))
        if status.null_count == len(kept):
            return kept, spill.filter(known.select(KEYS), gone)
    raise CorruptFile(f"{name} removes images in a way that no ingest does; put back a copy of it")


def _check_new(added: pa.Table, name: str, *, first_new: int, next_chunk: int) -> None:
    chunks, ids = numpy_array(added["chunk_id"]), numpy_array(added["image_id"])
    in_order = np.array_equal(ids, np.arange(first_new, first_new + len(added)))
    in_order &= STATUS not in added.column_names or added[STATUS].null_count == len(added)
    steps = np.diff(chunks)
    if len(added) and not (in_order and chunks[0] == next_chunk and ((steps == 0) | (steps == 1)).all()):
        raise CorruptFile(f"{name} does not go on where the dataset files before it end; put back copies of them")


def _chunks_of(added: pa.Table) -> pa.Table:
    digests: dict[int, Any] = {}
    first: dict[int, int] = {}
    sizes: Counter[int] = Counter()
    for batch in added.select(KEYS[:3]).to_batches(ROWS_TOGETHER):
        for image_id, chunk_id, filename in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digests.setdefault(chunk_id, hashlib.sha256()).update(f"{image_id}\t{filename}\n".encode())
            first.setdefault(chunk_id, image_id)
            sizes[chunk_id] += 1
    return pa.table(
        {
            "chunk_id": arrow_column(list(first), pa.int32()),
            "first_image_id": arrow_column(list(first.values()), pa.int64()),
            "n_images": arrow_column(list(sizes.values()), pa.int32()),
            "digest": arrow_column([sha.hexdigest()[:16] for sha in digests.values()], pa.string()),
        }
    )


def _update_images(connection: DuckDBPyConnection, changed: pa.Table, removed: pa.Table, number: int) -> None:
    known = {"changed_rows": "subset = r.subset, removed_by = NULL", "removed_rows": f"removed_by = {number}"}
    for (name, values), rows in zip(known.items(), (changed, removed), strict=True):
        if len(rows):
            with registered_table(connection, name, rows.select(["image_id", "subset"])):
                connection.execute(f"UPDATE images SET {values} FROM {name} r WHERE images.image_id = r.image_id")
