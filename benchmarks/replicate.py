"""A large store without the work: the codes of a few pictures, repeated under other names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

from benchmarks import data
from featurestore import FeatureStore
from featurestore.catalog import (
    PartitionRow,
    Step,
    Work,
    WritableContext,
    partition_manifest,
    record_model,
    resolve,
)
from featurestore.catalog.records import record_partition, record_variant
from featurestore.catalog.statements import query_arrow
from featurestore.pipeline import ChunkWriter
from featurestore.progress import Silent
from featurestore.rows import Compression, Layout, Row
from featurestore.storage import PartitionFile


def replicate(source: FeatureStore, path: Path, n: int, *, compression: Compression = "zstd") -> None:
    """Make a store of ``n`` images: quantize is there, and what it was made from counts as pruned."""
    path.mkdir(parents=True)
    rows = data.rows(source, "quantize")
    with PartitionFile(data.partitions(source, "quantize")[0]) as file:
        layout = replace(file.layout, compression=compression)
    names = [f"copy-{i // len(rows):04d}/{rows[i % len(rows)].filename}" for i in range(n)]
    dataset = data.write_dataset(path.parent / f"{path.name}.csv", names)
    images = path.parent / f"{path.name}-images"  # none is ever read, and no store is made where none exists
    (images / names[0]).parent.mkdir(parents=True)
    (images / names[0]).touch()
    store = FeatureStore.create(path, images=images, dataset=dataset, chunk_size=1000)
    with store._held("replicate", Silent()) as context:
        _fill(context, source, rows, names, layout)


def _fill(context: WritableContext, source: FeatureStore, rows: list[Row], names: list[str], layout: Layout) -> None:
    for model in sorted(source.path.glob("models/*/*/*.npz")):
        name = model.relative_to(source.path).as_posix()
        context.root.local(name).parent.mkdir(parents=True)
        context.root.local(name).write_bytes(model.read_bytes())
        record_model(context.root, context.catalog, name)
    with context.catalog.reading() as connection:
        extract, _, project, _, quantize = resolve(connection, context.flow)
        chunks = chunks_of(connection)
    made = _images(rows, names)
    for chunk in chunks:
        members = list(islice(made, chunk["n_images"]))
        payload = pruned(context, extract, chunk, chunk["digest"], members)
        payload = pruned(context, project, chunk, payload, members)
        written(context, quantize, chunk, payload, members, layout)


def chunks_of(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
    """Return the catalog's chunks, in order."""
    chunks: list[dict[str, Any]] = query_arrow(connection, "SELECT * FROM chunks ORDER BY chunk_id").to_pylist()
    return chunks


def _images(rows: list[Row], names: list[str]) -> Iterator[Row]:
    for image_id, (row, name) in enumerate(zip(cycle(rows), names)):
        yield replace(row, image_id=image_id, filename=name)


def pruned(context: WritableContext, step: Step, chunk: dict[str, Any], input_payload: str, members: list[Row]) -> str:
    """Record a partition that was made and pruned; return its payload."""
    payload = f"{chunk['chunk_id']:016x}"
    work = _work(chunk, input_payload)
    row = PartitionRow(
        stage=step.stage.name,
        variant=str(step.variant),
        chunk_id=chunk["chunk_id"],
        payload=payload,
        input_payload=input_payload,
        path=f"{step.stage.name}/{payload}",
        checksum="",
        n_bytes=0,
        n_images=len(members),
        n_descriptors=sum(row.n_descriptors for row in members),
        dim=1,
        n_clipped=None,
        pruned=True,
        origin="run",
        versions={},
    )
    results = pa.table(
        {
            "image_id": pa.array([row.image_id for row in members], pa.int64()),
            "status": [row.status for row in members],
            "error": pa.array([row.error for row in members], pa.string()),
            "n_descriptors": pa.array([row.n_descriptors for row in members], pa.int32()),
            "pixels": pa.nulls(len(members), pa.int64()),
        }
    )
    with context.catalog.transaction() as connection:
        record_variant(connection, partition_manifest(step, work, origin="run"))
        record_partition(connection, row, results)
    return payload


def written(
    context: WritableContext, step: Step, chunk: dict[str, Any], input_payload: str, members: list[Row], layout: Layout
) -> str:
    """Write and record a partition of these rows; return its payload."""
    work = _work(chunk, input_payload)
    writer = ChunkWriter(context.root, layout=layout, manifest=partition_manifest(step, work, origin="run"))
    written = writer.target.write(members)
    writer.publish(context.catalog, written.payload, written.checksum, written.facts)
    return str(written.payload)


def _work(chunk: dict[str, Any], input_payload: str) -> Work:
    return Work(
        chunk_id=chunk["chunk_id"],
        first_image_id=chunk["first_image_id"],
        n_images=chunk["n_images"],
        why="never run",
        input_payload=input_payload,
        input_path=None,
        input_ready=True,
    )
