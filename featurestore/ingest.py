"""Ingest: from the dataset's rows to images and chunks that never change their numbers.

What an ingest added, changed or removed is one file, ``dataset/000001.parquet``. The file is the truth; the catalog
follows from replaying these files in order. A removed image keeps its number and its place in its chunk.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from featurestore.access import readable
from featurestore.catalog import Catalog, arrow, insert_arrow
from featurestore.errors import ConfirmationNeeded, CorruptFile, FormatError
from featurestore.instance import raw, registered
from featurestore.ledger import upsert
from featurestore.manifest import parse
from featurestore.spill import IN_MEMORY, ROWS_TOGETHER, Spill
from featurestore.storage import Root, file_digest
from featurestore.tables import DATASET_COLUMNS, Ingest

KEYS = ("image_id", "chunk_id", "filename", "subset")
KINDS = {"image_id": pa.int64(), "chunk_id": pa.int32(), "filename": pa.string(), "subset": pa.string()}
FORMATS = (1, 2)  # 2: with removals, which an older version would overlook
STATUS = "status"  # the column that tells removed images from those of the dataset; no CSV column has this name
REMOVED = "removed"
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
    warnings: list[str] = field(default_factory=list)


def ingest(
    root: Root,
    catalog: Catalog,
    dataset: pa.Table,
    *,
    chunk_size: int,
    confirm: Callable[[str], bool] = lambda question: False,
    spill: Spill = IN_MEMORY,
) -> IngestReport:
    """Take over the dataset: new filenames get new ids in new chunks, known ones their new values, others are removed.

    Args:
        root: of the store.
        catalog: of the store.
        dataset: from `dataset.read_csv` or `dataset.scan_folder`.
        chunk_size: images in a new chunk.
        confirm: is asked before more than a tenth of the images are removed.
        spill: where rows go that would need much memory.

    Raises:
        ConfirmationNeeded: it did not agree.
    """
    with catalog.reading() as connection, spill.bounding(raw(connection), columns=dataset.num_columns):
        delta = _delta(connection, dataset, chunk_size, spill)
        removed, n_returned = _removed(connection, dataset, confirm)
        number = connection.execute(sa.text("SELECT coalesce(max(ingest_id), 0) + 1 FROM ingests")).scalar_one()
    file_format = FORMATS[bool(len(removed))]
    if len(removed):
        delta = _with_removed(delta, removed)
    n_delta = len(delta)
    if n_delta:
        name = f"dataset/{number:06d}.parquet"
        with root.publishing(name) as temporary:
            # The checksums are of use when the catalog, which has one of the whole file, is lost.
            metadata = {"featurestore": json.dumps({"format": file_format, "kind": "dataset"})}
            pq.write_table(
                delta.replace_schema_metadata(metadata),
                temporary,
                row_group_size=ROWS_TOGETHER,
                compression="zstd",
                write_page_checksum=True,
            )
        del delta
        replay(root, catalog, name, spill)
    return _report(catalog, number if n_delta else None, n_returned)


def _removed(connection: sa.Connection, dataset: pa.Table, confirm: Callable[[str], bool]) -> tuple[pa.Table, int]:
    """Return the images that have left the dataset, and how many have come back to it."""
    with registered(connection, "incoming", dataset.select(["filename"])):
        query = f"""SELECT {", ".join(KEYS)} FROM images ANTI JOIN incoming USING (filename)
                    WHERE removed_by IS NULL ORDER BY image_id"""
        removed = arrow(connection, query)
        query = "SELECT count(*) FROM images SEMI JOIN incoming USING (filename) WHERE removed_by IS NOT NULL"
        n_returned = connection.execute(sa.text(query)).scalar_one()
    n_images = connection.execute(sa.text("SELECT count(*) FROM images WHERE removed_by IS NULL")).scalar_one()
    if len(removed) > MOST_REMOVED * n_images:
        question = (
            f"the dataset has no row for {len(removed):,} of the {n_images:,} images, for example "
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
    with catalog.reading() as connection, registered(connection, "incoming", incoming):
        query = f"SELECT filename FROM incoming ANTI JOIN images USING (filename) ORDER BY position LIMIT {most}"
        names: list[str] = arrow(connection, query)["filename"].to_pylist()
    return names


def replay(root: Root, catalog: Catalog, name: str, spill: Spill = IN_MEMORY) -> None:
    """Bring the catalog up to the dataset file ``name``, in one transaction.

    Raises:
        CorruptFile: the file is damaged, or does not follow the ones before it.
        UnreadableFile: it can't be opened or read.
        FormatError: it was written by a newer version.
    """
    path = root.local(name)
    delta = _read(path, name, spill)
    number = int(path.stem)
    with (
        catalog.transaction() as connection,
        spill.bounding(
            raw(connection), columns=delta.num_columns, indexed=(first_new := _next_image(connection)) + len(delta)
        ),
    ):
        n_known = int(np.count_nonzero(delta["image_id"].to_numpy() < first_new))
        known, added = delta.slice(0, n_known), delta.slice(n_known)
        changed, removed = _split(known, name, spill)
        next_chunk = connection.execute(sa.text("SELECT coalesce(max(chunk_id) + 1, 0) FROM chunks")).scalar_one()
        _check_new(added, name, first_new=first_new, next_chunk=next_chunk)
        added = added.select(changed.column_names)
        insert_arrow(connection, "images", added.select(KEYS))
        insert_arrow(connection, "chunks", _chunks_of(added))
        _update_images(connection, changed, removed, number)
        _store_columns(connection, added, changed)
        values = {"path": name, "checksum": file_digest(path), "n_new": len(added), "n_changed": len(changed)}
        upsert(connection, Ingest, {"ingest_id": number, **values})


def _next_image(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT coalesce(max(image_id) + 1, 0) FROM images")).scalar_one())


def _read(path: Path, name: str, spill: Spill) -> pa.Table:
    try:
        with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = parse((file.metadata.metadata or {}).get(b"featurestore", b"")).get("format")
            batches = file.iter_batches(ROWS_TOGETHER)
            delta = spill.keep(batches, file.schema_arrow) if found in FORMATS else None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise CorruptFile(f"{name} can't be read ({' '.join(str(error).split())}); put back a copy of it") from error
    if delta is None:
        raise FormatError(
            f"{name} is of format {found}, and this version knows {FORMATS[-1]}; use a newer featurestore"
        )
    for column, kind in KINDS.items():
        if column not in delta.column_names or delta[column].type != kind or delta[column].null_count:
            raise CorruptFile(f"{name} has no column {column} of {kind} in every row; put back a copy of it")
    return delta


def _split(known: pa.Table, name: str, spill: Spill) -> tuple[pa.Table, pa.Table]:
    """Return the rows of known images that are in the dataset, without ``status``, and of those removed from it."""
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
    chunks, ids = added["chunk_id"].to_numpy(), added["image_id"].to_numpy()
    in_order = np.array_equal(ids, np.arange(first_new, first_new + len(added)))
    in_order &= STATUS not in added.column_names or added[STATUS].null_count == len(added)
    steps = np.diff(chunks)
    if len(added) and not (in_order and chunks[0] == next_chunk and ((steps == 0) | (steps == 1)).all()):
        raise CorruptFile(f"{name} does not go on where the dataset files before it end; put back copies of them")


def _delta(connection: sa.Connection, dataset: pa.Table, chunk_size: int, spill: Spill) -> pa.Table:
    """Return the rows that are new or changed, with their ids, in ``image_id`` order."""
    known = _types(connection)
    extra = [name for name in dataset.column_names if name not in KEYS]
    differs = ["i.removed_by IS NOT NULL", "t.subset IS DISTINCT FROM i.subset"]
    differs += [
        f"CAST(t.{_quote(n)} AS VARCHAR) IS DISTINCT FROM "
        + (f"CAST(d.{_quote(n)} AS VARCHAR)" if _folded(n) in known else "NULL")
        for n in extra
    ]
    columns = "".join(f", t.{_quote(n)}" for n in extra)
    stored = f"LEFT JOIN {DATASET_COLUMNS} d ON d.image_id = i.image_id" if known else ""
    position = "position"
    while position in map(_folded, dataset.column_names):
        position += "_"
    positions = pa.arange(0, len(dataset))
    with registered(connection, "incoming", dataset.append_column(position, positions)):
        # The rows are chosen by columns of ours only: the CSV's can have any name.
        query = f"""
            WITH chosen AS (
                SELECT t.{position} AS position, i.image_id AS known_id, i.chunk_id AS known_chunk,
                       row_number() OVER (PARTITION BY i.image_id IS NULL ORDER BY t.{position}) - 1 AS n
                FROM incoming t LEFT JOIN images i ON i.filename = t.filename {stored}
                WHERE i.image_id IS NULL OR {" OR ".join(differs)}
            )
            SELECT position, coalesce(known_id, (SELECT coalesce(max(image_id) + 1, 0) FROM images) + n) AS image_id,
                   CAST(coalesce(known_chunk,
                                 (SELECT coalesce(max(chunk_id) + 1, 0) FROM chunks) + n // {chunk_size})
                        AS INTEGER) AS chunk_id
            FROM chosen
            """
        with registered(connection, "numbered", spill.table(raw(connection).sql(query))):
            query = f"""SELECT k.image_id, k.chunk_id, t.filename, t.subset {columns}
                        FROM numbered k JOIN incoming t ON t.{position} = k.position ORDER BY 1"""
            return spill.table(raw(connection).sql(query))


def _types(connection: sa.Connection) -> dict[str, str]:
    found = connection.execute(
        sa.text("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = :table"),
        {"table": DATASET_COLUMNS},
    ).all()
    return {_folded(name): kind for name, kind in found}


def _folded(name: str) -> str:
    """Return the name of a column as DuckDB compares it: only the letters of ASCII are the same in any case."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


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
            "chunk_id": pa.array(first, pa.int32()),
            "first_image_id": pa.array(first.values(), pa.int64()),
            "n_images": pa.array(sizes.values(), pa.int32()),
            "digest": pa.array([sha.hexdigest()[:16] for sha in digests.values()], pa.string()),
        }
    )


def _update_images(connection: sa.Connection, changed: pa.Table, removed: pa.Table, number: int) -> None:
    known = {"changed_rows": "subset = r.subset, removed_by = NULL", "removed_rows": f"removed_by = {number}"}
    for (name, values), rows in zip(known.items(), (changed, removed), strict=True):
        if len(rows):
            with registered(connection, name, rows.select(["image_id", "subset"])):
                connection.execute(
                    sa.text(f"UPDATE images SET {values} FROM {name} r WHERE images.image_id = r.image_id")
                )


def _store_columns(connection: sa.Connection, added: pa.Table, changed: pa.Table) -> None:
    """Keep the CSV's own columns; where two ingests disagree about a column's type, it widens to VARCHAR."""
    known = _types(connection)
    run = connection.exec_driver_sql  # names of CSV columns may hold colons, which text() would take for parameters
    if not known:
        run(f"CREATE TABLE {DATASET_COLUMNS} (image_id BIGINT)")
    names = [name for name in added.column_names if name not in KEYS] if len(added) or len(changed) else []
    with registered(connection, "added_rows", added), registered(connection, "changed_rows", changed):
        for name in names:
            _fit_column(connection, name, known.get(_folded(name)))
        for column in map(_quote, names):
            run(
                f"UPDATE {DATASET_COLUMNS} SET {column} = c.{column} FROM changed_rows c "
                f"WHERE {DATASET_COLUMNS}.image_id = c.image_id"
            )
        columns = ", ".join(["image_id", *map(_quote, names)])
        run(f"INSERT INTO {DATASET_COLUMNS} BY NAME SELECT {columns} FROM added_rows")


def _fit_column(connection: sa.Connection, name: str, kind: str | None) -> None:
    column, run = _quote(name), connection.exec_driver_sql
    incoming = f"(SELECT {column} FROM added_rows UNION ALL SELECT {column} FROM changed_rows)"
    incoming_kind, n_values = run(f"SELECT any_value(typeof({column})), count({column}) FROM {incoming}").all()[0]
    if kind is None:
        run(f"ALTER TABLE {DATASET_COLUMNS} ADD COLUMN {column} {incoming_kind}")
    elif n_values and kind not in (incoming_kind, "VARCHAR"):
        run(f"ALTER TABLE {DATASET_COLUMNS} ALTER {column} TYPE VARCHAR")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _report(catalog: Catalog, ingest_id: int | None, n_returned: int) -> IngestReport:
    with catalog.reading() as connection:
        query = "SELECT subset, count(*) FROM images WHERE removed_by IS NULL GROUP BY 1 ORDER BY 1"
        subsets = connection.execute(sa.text(query)).all()
        n_chunks = connection.execute(sa.text("SELECT count(*) FROM chunks")).scalar_one()
        query = """SELECT n_new, n_changed, (SELECT count(*) FROM images WHERE removed_by = ingest_id)
                   FROM ingests WHERE ingest_id = :id"""
        done = connection.execute(sa.text(query), {"id": ingest_id or -1}).all()
    n_new, n_changed, n_removed = done[0] if done else (0, 0, 0)
    counts = {str(name): int(n) for name, n in subsets}
    return IngestReport(
        ingest_id, n_new, n_changed, n_removed, n_returned, sum(counts.values()), n_chunks, subsets=counts
    )
