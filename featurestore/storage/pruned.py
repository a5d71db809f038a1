"""Pruned partitions: ``index-000022.parquet`` keeps the rows of a partition without descriptors and keypoints.

The manifest is that of the partition, with two more entries: ``pruned``, and ``index_payload``, a digest of the
remaining rows. So the catalog can be rebuilt from it as from the whole partition.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import CorruptFile
from featurestore.rows import KEYPOINT_COLUMNS
from featurestore.storage.partition import MANIFEST_KEY, PartitionFile
from featurestore.storage.partitions import Place

BLOBS = ("descriptors", *KEYPOINT_COLUMNS)


def is_index(name: str) -> bool:
    """Return whether a file of the store is the index of a pruned partition, by its name."""
    return PurePosixPath(name).name.startswith("index-")


def index_name(stage: str, variant: str, chunk_id: int) -> str:
    """Return the name of an index below the root."""
    return f"partitions/{stage}/{variant}/index-{chunk_id:06d}.parquet"


def write_index(partition: Place, target: Path) -> None:
    """Write the rows of a partition without its blobs to ``target``.

    Raises:
        CorruptFile: the partition can't be read.
    """
    with PartitionFile(partition) as file:
        rows = file.columns([name for name in file.layout.schema().names if name not in BLOBS])
        manifest = {**file.manifest, "pruned": True, "index_payload": index_payload(rows)}
        layout = file.layout
    metadata = {
        MANIFEST_KEY: json.dumps(manifest, sort_keys=True),
        "dim": str(layout.dim),
        "dtype": layout.stored_dtype,
    }
    pq.write_table(rows.replace_schema_metadata(metadata), target, compression="zstd")


def check_index(path: Place) -> None:
    """Check that an index holds the rows that its manifest promises.

    Raises:
        CorruptFile: it does not.
    """
    with PartitionFile(path) as file:
        rows = file.columns([name for name in file.layout.schema().names if name not in BLOBS])
        promised = file.manifest.get("index_payload")
    if promised != index_payload(rows):
        raise CorruptFile(f"{path.name} does not hold the rows that its manifest promises")


def index_payload(rows: pa.Table) -> str:
    """Return the digest of the rows of an index: 16 hex digits."""
    sha = hashlib.sha256()
    for row in rows.to_pylist():
        sha.update(json.dumps(row, sort_keys=True, default=_no_json).encode())
    return sha.hexdigest()[:16]


def _no_json(value: Any) -> str:
    return repr(value)
