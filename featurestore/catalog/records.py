"""Records of committed partitions: the same for a run, an adopted orphan, an import and a rebuilt catalog."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection

from featurestore.arrow_arrays import arrow_array, arrow_column
from featurestore.catalog.catalog import WritableCatalog
from featurestore.catalog.runs import record_progress
from featurestore.catalog.statements import delete_rows, insert_arrow, insert_row, insert_rows, upsert
from featurestore.catalog.table_rows import PartitionRow, VariantRow, query_row
from featurestore.errors import CorruptFile
from featurestore.formatting import counted
from featurestore.storage import (
    PARTITION,
    PartitionFile,
    Root,
    RowDigest,
    Writer,
    check_index,
    check_manifest,
    index_name,
    is_index,
    partition_name,
)
from featurestore.system import readable

LOG = logging.getLogger("featurestore.catalog")


@dataclass(frozen=True)
class Described:
    """The catalog's record of a partition."""

    manifest: dict[str, Any]
    row: PartitionRow
    results: pa.Table  # of each image: image_id, status, error, n_descriptors, pixels


def record_file(
    root: Writer, catalog: WritableCatalog, name: str, *, checksum: str | None = None, n_done: int | None = None
) -> PartitionRow:
    """Record the committed partition ``name``, and delete the one that it replaces; return its row.

    Without its ``checksum``, the SHA-256 that was taken while it was written, the file is read for it. ``n_done`` are
    the images that the run at work has done, with those of the partition; None if that is not recorded.

    Raises:
        CorruptFile: the file is not a partition.
    """
    return _record(root, catalog, describe_partition(root, name, checksum=checksum), n_done)


def record_written(
    root: Writer,
    catalog: WritableCatalog,
    name: str,
    manifest: Mapping[str, Any],
    facts: pa.Table,
    *,
    dim: int,
    checksum: str,
    n_done: int | None = None,
) -> PartitionRow:
    """Record the committed partition ``name`` by what its writer reports: it is not opened. See `record_file`.

    Args:
        root: of the store.
        catalog: of the store.
        name: of the file.
        manifest: that it holds.
        facts: its columns of `Layout.facts`.
        dim: of its descriptors.
        checksum: its SHA-256, taken while it was written.
        n_done: as of `record_file`.

    Raises:
        CorruptFile: manifest or columns do not match the name.
    """
    _check_manifest(manifest, name)
    return _record(root, catalog, _described(root, name, manifest, facts, dim=dim, checksum=checksum), n_done)


def _record(root: Writer, catalog: WritableCatalog, described: Described, n_done: int | None) -> PartitionRow:
    replaced = record_described(catalog, described, n_done)
    if replaced:
        root.remove(replaced)
    return described.row


def record_described(catalog: WritableCatalog, described: Described, n_done: int | None = None) -> str | None:
    """Record a partition in one transaction; return the name of the file that it replaces, if any.

    ``n_done`` is as of `record_file`.
    """
    with catalog.transaction() as connection:
        record_variant(connection, described.manifest)
        replaced = record_partition(connection, described.row, described.results)
        if n_done is not None:
            record_progress(connection, described.row.variant, n_done)
    _log(described.row)
    return replaced


def record_new(catalog: WritableCatalog, partitions: Sequence[Described]) -> None:
    """Record partitions in one transaction, where the catalog has none of these chunks, stages and variants yet."""
    manifests = {described.row.variant: described.manifest for described in partitions}
    with catalog.transaction() as connection:
        for manifest in manifests.values():
            record_variant(connection, manifest)
        insert_rows(connection, "partitions", [vars(described.row) for described in partitions])
        insert_arrow(connection, "results", pa.concat_tables(_keyed(d.row, d.results) for d in partitions))
    for described in partitions:
        _log(described.row)


def _log(row: PartitionRow) -> None:
    found = counted(row.n_images, "image"), counted(row.n_descriptors, "descriptor"), row.n_bytes
    LOG.info("recorded %s: %s, %s, %d bytes", row.path, *found)


def record_partition(connection: DuckDBPyConnection, row: PartitionRow, results: pa.Table) -> str | None:
    """Record a committed partition and its results; return the path of the file that it replaces, if any.

    Args:
        connection: of a transaction.
        row: of the file.
        results: ``chunk_id, image_id, status, error, n_descriptors, pixels`` of each image.
    """
    key = {"stage": row.stage, "variant": row.variant, "chunk_id": row.chunk_id}
    query = "SELECT path FROM partitions WHERE stage = $stage AND variant = $variant AND chunk_id = $chunk_id"
    old = [path for (path,) in connection.execute(query, key).fetchall()]
    if old:
        delete_rows(connection, "results", key)
        upsert(connection, "partitions", vars(row))
    else:  # in a third of the time
        insert_row(connection, "partitions", vars(row))
    insert_arrow(connection, "results", _keyed(row, results))
    return str(old[0]) if old and old[0] != row.path else None


def _keyed(row: PartitionRow, results: pa.Table) -> pa.Table:
    """Return the rows of ``results`` in the catalog."""
    constant = {
        "stage": arrow_column([row.stage] * len(results), pa.string()),
        "variant": arrow_column([row.variant] * len(results), pa.string()),
        "chunk_id": arrow_array(np.full(len(results), row.chunk_id, np.int64)),
    }
    return pa.table({**dict(zip(results.column_names, results.columns, strict=True)), **constant})


def describe_partition(root: Root, name: str, *, checksum: str | None = None) -> Described:
    """Return the record of a partition, from the columns of `Layout.facts` and the digest of its bytes.

    Args:
        root: of the store.
        name: of the file.
        checksum: its SHA-256, if already known.

    Raises:
        CorruptFile: the file is not a partition, or does not match its name.
    """
    with PartitionFile(root.at(name)) as file:
        _check_manifest(file.manifest, name)
        facts, layout = file.columns(file.layout.facts()), file.layout
        n_bytes = file.n_bytes
        return _described(root, name, file.manifest, facts, dim=layout.dim, checksum=checksum, n_bytes=n_bytes)


def _described(
    root: Root,
    name: str,
    manifest: Mapping[str, Any],
    facts: pa.Table,
    *,
    dim: int,
    checksum: str | None,
    n_bytes: int | None = None,
) -> Described:
    if n_bytes is None:
        state = root.state(name)
        if state is None:
            raise CorruptFile(f"{name} is missing")
        n_bytes, etag = state.size, state.version
    else:
        etag = root.partitions.version(name)
    _check_facts(manifest, facts, name)
    clipped = pc.sum(facts["n_clipped"]).as_py() or 0 if "n_clipped" in facts.column_names else None
    row = PartitionRow(
        **{key: manifest[key] for key in ("stage", "variant", "chunk_id", "payload", "input_payload", "origin")},
        versions=manifest["versions"],
        path=name,
        checksum=checksum or root.partitions.digest(name),
        n_bytes=n_bytes,
        n_images=len(facts),
        n_descriptors=pc.sum(facts["n_descriptors"]).as_py() or 0,
        dim=dim,
        n_clipped=clipped,
        pruned=is_index(name),
        etag=etag,
    )
    return Described(dict(manifest), row, _results(facts))


def _check_manifest(manifest: Mapping[str, Any], name: str) -> None:
    check_manifest(manifest, PARTITION, name)
    place = (manifest["stage"], manifest["variant"], manifest["chunk_id"])
    if name != (index_name(*place) if is_index(name) else partition_name(*place, manifest["payload"])):
        raise CorruptFile(f"{name} should be called {partition_name(*place, manifest['payload'])}")
    if is_index(name) != (manifest.get("pruned") is True):
        raise CorruptFile(f"{name} does not say whether it is a whole partition")


def _check_facts(manifest: Mapping[str, Any], facts: pa.Table, name: str) -> None:
    first, n = manifest["first_image_id"], manifest["n_images"]
    if len(facts) != n or facts["image_id"].to_pylist() != list(range(first, first + n)):
        raise CorruptFile(f"{name} does not have one row for each of the images {first} to {first + n - 1}, in order")
    for column in ("status", "n_descriptors"):
        if facts[column].null_count:
            raise CorruptFile(f"{name} has rows without {column}")
    if pc.min(facts["n_descriptors"]).as_py() < 0:
        raise CorruptFile(f"{name} has rows with a negative number of descriptors")


def _results(facts: pa.Table) -> pa.Table:
    if "width" in facts.column_names:
        pixels = pc.multiply(facts["width"].cast(pa.int64()), facts["height"].cast(pa.int64()))
    else:
        pixels = pa.nulls(len(facts), pa.int64())
    return facts.select(["image_id", "status", "error", "n_descriptors"]).append_column("pixels", pixels)


def record_variant(connection: DuckDBPyConnection, manifest: Mapping[str, Any]) -> None:
    """Record a variant with its stage, parameters and model."""
    row = VariantRow(**{name: manifest[name] for name in VariantRow.__match_args__})
    query = "SELECT * FROM variants WHERE variant = $variant"
    found = query_row(connection, VariantRow, query, {"variant": row.variant})
    if found is None:
        insert_row(connection, "variants", vars(row))
    elif found != row:
        upsert(connection, "variants", vars(row))


def check_partition(root: Root, name: str, *, copy: IO[bytes] | None = None) -> Described:
    """Check a partition, or the index of a pruned one, against its name and manifest.

    Every value is read, and every byte of a partition once. Returns its record.

    Args:
        root: of the store.
        name: of the file.
        copy: gets all bytes of a partition; an index is not copied.

    Raises:
        CorruptFile: it does not match.
        UnreadableFile: it could not be read to its end.
    """
    path = root.at(name)
    with readable(path):
        if is_index(name):
            described = describe_partition(root, name)
            check_index(path)
            return described
        with PartitionFile(path, hashed=True, copy=copy) as file:
            _check_manifest(file.manifest, name)
            payload, counts, facts = _read_back(file)
            checksum, dim, n_bytes = file.checksum(), file.layout.dim, file.n_bytes
            described = _described(root, name, file.manifest, facts, dim=dim, checksum=checksum, n_bytes=n_bytes)
    if payload != PurePosixPath(name).stem.rpartition("-")[2]:
        raise CorruptFile(f"{name} does not hold the rows that its name promises")
    if counts != described.results["n_descriptors"].to_pylist():
        raise CorruptFile(f"{name} has images with another number of descriptors than it says")
    return described


def _read_back(file: PartitionFile) -> tuple[str, list[int], pa.Table]:
    """Return the digest of a partition's rows, the number of descriptors of each, and the columns of `Layout.facts`."""
    digest, counts, facts = RowDigest(str(file.manifest["input_payload"])), list[int](), list[pa.Table]()
    for row_group in range(file.n_row_groups):
        table = file.table(row_group, file.layout.schema().names)
        facts.append(table.select(file.layout.facts()))
        for row in file.rows_of(table):
            digest.update(row)
            counts.append(row.n_descriptors)
    return digest.hexdigest(), counts, pa.concat_tables(facts) if facts else file.columns(file.layout.facts())
