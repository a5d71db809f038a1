"""parquet: one row per image, or one row per descriptor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from featurestore.errors import CorruptFile, QueryError
from featurestore.exchange.exporters.base import ImageExporter, Job
from featurestore.exchange.exporters.row_groups import write_row_groups
from featurestore.query import Selection, write_parquet
from featurestore.rows import KEYPOINT_COLUMNS, blob_bytes

STORE_COLUMNS = ("status", "error", "n_descriptors", "descriptors")
FLAT = ("image_id", "filename", "subset")  # repeated in every row of an image


def image_columns(selection: Selection) -> list[str]:
    """Return the columns of a table with one row per image: the dataset's, ours, and keypoints where there are some."""
    keypoints = KEYPOINT_COLUMNS if selection.layout.keypoints else ()
    names = [*(name for name in selection.images.column_names if name != "chunk_id"), *STORE_COLUMNS, *keypoints]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise QueryError(
            f"{twice[0]!r} is a column of the dataset and one of the store's; rename it in the CSV and ingest again, "
            "or export npy"
        )
    return names


@dataclass(frozen=True)
class Parquet(ImageExporter):
    """A Parquet file with one row per image, its columns of the dataset CSV, and its descriptors as one BLOB."""

    name: ClassVar[str] = "parquet"
    about: ClassVar[str] = "one row per image, descriptors as a BLOB; with --flat one row per descriptor"
    dataset_columns: ClassVar[bool] = True

    def check(self, job: Job, *, force: bool) -> None:
        """Refuse a dataset column with the name of a keypoint column."""
        image_columns(job.selection)

    def write(self, job: Job, path: Path) -> None:
        """Write the file, a row group at a time."""
        columns = image_columns(job.selection)
        plain = [name for name in columns if name not in ("descriptors", *KEYPOINT_COLUMNS)]
        schema = job.selection.schema(columns)
        with path.open("wb") as file:
            # A dictionary and statistics of BLOBs would be as large as the BLOBs.
            write_parquet(job.tables(columns), schema, file, dictionary=plain, statistics=plain)


@dataclass(frozen=True)
class FlatParquet(ImageExporter):
    """A Parquet file with one row per descriptor: its image, its keypoint, and its values as a list."""

    name: ClassVar[str] = "parquet-flat"
    about: ClassVar[str] = "one row per descriptor, values as a list, keypoint beside it"

    def write(self, job: Job, path: Path) -> None:
        """Write the file; all cores encode its row groups."""
        schema = _flat_schema(job)
        with path.open("wb") as file:
            tables = job.tables([*FLAT, "n_descriptors", "descriptors", *_keypoints(job)])
            write_row_groups(tables, schema, file, prepare=partial(_flat, job, schema), dictionary=FLAT)


def _flat_schema(job: Job) -> pa.Schema:
    images = job.selection.images.schema
    keypoints = [job.selection.layout.schema().field(name) for name in _keypoints(job)]
    values = pa.list_(pa.from_numpy_dtype(job.dtype), job.dim)
    return pa.schema(
        [
            *(images.field(name) for name in FLAT),
            ("position", pa.int32()),
            *(pa.field(field.name, field.type.value_type) for field in keypoints),
            ("descriptor", values),
        ]
    )


def _keypoints(job: Job) -> tuple[str, ...]:
    return KEYPOINT_COLUMNS if job.selection.layout.keypoints else ()


def _flat(job: Job, schema: pa.Schema, table: pa.Table) -> pa.Table:
    # keypoints are the store's own, whatever the dataset calls its columns
    table = table.combine_chunks()
    counts = table["n_descriptors"].to_numpy()
    parents = pa.array(np.repeat(np.arange(len(counts)), counts))
    starts = np.cumsum(counts) - counts
    columns = {name: table[name].take(parents) for name in FLAT}
    columns["position"] = pa.array(np.arange(len(parents), dtype=np.int32) - np.repeat(starts, counts), pa.int32())
    for name in _keypoints(job):
        columns[name] = _flattened(table[name], counts)
    values = np.concatenate([blob_bytes(blobs)[1] for blobs in table["descriptors"].chunks] or [np.empty(0, "u1")])
    if len(values) != len(parents) * job.dim * job.dtype.itemsize:
        raise CorruptFile(
            "an image does not have as many descriptors as its partition says; look for what is damaged with: "
            "featurestore verify STORE"
        )
    columns["descriptor"] = pa.FixedSizeListArray.from_arrays(pa.array(values.view(job.dtype)), job.dim)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _flattened(lists: pa.ChunkedArray, counts: np.ndarray[tuple[int], np.dtype[np.int32]]) -> pa.Array:
    """Return one value per descriptor; an image that was imported without keypoints has nulls."""
    lists = lists.combine_chunks()
    if lists.null_count == 0 or not lists.is_null().to_numpy(zero_copy_only=False)[counts > 0].any():
        return lists.flatten()
    parts = [
        found.values if found.is_valid else pa.nulls(int(count), lists.type.value_type)
        for found, count in zip(lists, counts, strict=True)
    ]
    return pa.concat_arrays(parts)
