"""From a committed file to its record: the same way for a run, an adopted orphan, an import and a rebuilt catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from featurestore.catalog import Catalog, insert_arrow, record_partition, upsert
from featurestore.errors import CorruptFile
from featurestore.models import IMAGES, from_bitmap, model_id, read_arrays
from featurestore.partition import PartitionFile, RowDigest
from featurestore.storage import Root, file_digest
from featurestore.tables import Model, TrainingImage, Variant

FACTS = ("image_id", "status", "error", "n_descriptors", "width", "height", "n_clipped")


def partition_name(stage: str, variant: str, chunk_id: int, payload: str) -> str:
    """Return the name of a partition below the root."""
    return f"partitions/{stage}/{variant}/chunk-{chunk_id:06d}-{payload}.parquet"


def model_name(stage: str, variant: str, identity: str) -> str:
    """Return the name of a model below the root."""
    return f"models/{stage}/{variant}/{identity}.npz"


def record_file(root: Root, catalog: Catalog, name: str) -> dict[str, Any]:
    """Record the committed partition ``name``, and delete the one that it replaces; return its row of ``partitions``.

    Raises:
        CorruptFile: the file is not a partition.
    """
    values, results = describe(root, name)
    with PartitionFile(root.local(name)) as file:
        manifest = file.manifest
    with catalog.transaction() as connection:
        record_variant(connection, manifest)
        replaced = record_partition(connection, values, results)
    if replaced:
        root.remove(replaced)
    return values


def describe(root: Root, name: str) -> tuple[dict[str, Any], pa.Table]:
    """Return what the catalog keeps of a partition: its row of ``partitions``, and of each image its ``results``."""
    path = root.local(name)
    with PartitionFile(path) as file:
        manifest, layout = file.manifest, file.layout
    facts = pq.read_table(path, columns=[name for name in FACTS if name in layout.schema().names])
    clipped = pc.sum(facts["n_clipped"]).as_py() or 0 if "n_clipped" in facts.column_names else None
    values = {
        **{key: manifest[key] for key in ("stage", "variant", "chunk_id", "payload", "input_payload", "origin")},
        "versions": manifest["versions"],
        "path": name,
        "checksum": file_digest(path),
        "n_bytes": path.stat().st_size,
        "n_images": len(facts),
        "n_descriptors": pc.sum(facts["n_descriptors"]).as_py() or 0,
        "dim": layout.dim,
        "n_clipped": clipped,
        "pruned": False,
    }
    return values, _results(facts)


def _results(facts: pa.Table) -> pa.Table:
    if "width" in facts.column_names:
        pixels = pc.multiply(facts["width"].cast(pa.int64()), facts["height"].cast(pa.int64()))
    else:
        pixels = pa.nulls(len(facts), pa.int64())
    return facts.select(["image_id", "status", "error", "n_descriptors"]).append_column("pixels", pixels)


def record_variant(connection: sa.Connection, manifest: Mapping[str, Any]) -> None:
    """Record what a variant stands for."""
    names = ("variant", "stage", "version", "parameters", "reads_variant", "model_id")
    upsert(connection, Variant, {name: manifest[name] for name in names})


def payload_of(root: Root, name: str) -> str:
    """Return the digest of a partition's rows, read from the file.

    Raises:
        CorruptFile: the file can't be read.
    """
    with PartitionFile(root.local(name)) as file:
        digest = RowDigest(str(file.manifest["input_payload"]))
        for row in file.rows():
            digest.update(row)
    return digest.hexdigest()


def check_partition(root: Root, name: str) -> None:
    """Make sure that a partition's rows are those its name and its manifest promise.

    Raises:
        CorruptFile: they are not.
    """
    with PartitionFile(root.local(name)) as file:
        manifest = file.manifest
    expected = partition_name(manifest["stage"], manifest["variant"], manifest["chunk_id"], payload_of(root, name))
    if expected != name:
        raise CorruptFile(f"{name} does not hold the rows that its name promises")


def record_model(root: Root, catalog: Catalog, name: str) -> dict[str, Any]:
    """Record the committed model ``name`` and the images it learnt from; return its row of ``models``.

    Raises:
        CorruptFile: the file is not a model, or not the one that its name promises.
    """
    path = root.local(name)
    arrays, manifest = read_arrays(path)
    if model_name(manifest["stage"], manifest["variant"], model_id(manifest["variant"], arrays)) != name:
        raise CorruptFile(f"{name} does not hold the arrays that its name promises")
    images = from_bitmap(arrays[IMAGES])
    values = {
        "model_id": path.stem,
        **{key: manifest[key] for key in ("stage", "variant", "parent_id", "generation", "partial", "summary")},
        "path": name,
        "checksum": file_digest(path),
        "n_bytes": path.stat().st_size,
        "n_images": len(images),
    }
    learnt = pa.table({"model_id": pa.array([path.stem] * len(images), pa.string()), "image_id": pa.array(images)})
    with catalog.transaction() as connection:
        record_variant(connection, {**manifest, "model_id": None})
        upsert(connection, Model, values)
        connection.execute(sa.delete(TrainingImage).filter_by(model_id=path.stem))
        insert_arrow(connection, TrainingImage.__tablename__, learnt)
    return values
