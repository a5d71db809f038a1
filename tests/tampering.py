"""Files that were made to deceive: a model or a partition with another manifest, a model with a lying header."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


def partition_manifest(path: Path) -> dict[str, Any]:
    """What a partition says of itself."""
    found: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[b"featurestore"])
    return found


def our_metadata(path: Path) -> dict[bytes, bytes]:
    """The entries in a partition's metadata that the store has put there."""
    found = pq.read_metadata(path).metadata
    return {name: found[name] for name in (b"featurestore", b"dim", b"dtype")}


def rewrite_partition(path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a partition again, with other entries in its metadata."""
    table = pq.read_table(path)
    table = table.replace_schema_metadata(
        {**our_metadata(path), **{name.encode(): value for name, value in metadata.items()}}
    )
    path.unlink()
    pq.write_table(table, path, compression="zstd")


def npy(descr: str, shape: object, data: bytes = b"") -> bytes:
    """An array's header, which may say anything, and its bytes."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def write_npz(path: Path, members: Mapping[str, bytes]) -> None:
    """Write an ``.npz`` of raw members."""
    path.unlink(missing_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)


def as_npy(array: Any) -> bytes:
    """An honest member."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
