"""Rows: a stage's output for one image, and the columns of a partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.errors import CorruptFile

Compression = Literal["zstd", "none"]
KEYPOINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("size", "<f4"), ("angle", "<f4"), ("response", "<f4"), ("octave", "<i4")]
)


KEYPOINT_COLUMNS = KEYPOINT.names or ()
EXIF_ORIENTATION, SOURCE_VERSION = "exif_orientation", "source_version"
# Columns that say how rows were made and change no result. They are not part of the payload, and null where unknown.
OUTSIDE = {EXIF_ORIENTATION: pa.int8(), SOURCE_VERSION: pa.int64()}
# Columns that the catalog keeps, where a partition has them.
FACTS = ("image_id", "status", "error", "n_descriptors", "width", "height", "n_clipped")


class Status(StrEnum):
    """The status of a row. A stage of a plug-in may give others, which count as failed."""

    OK = "ok"
    EMPTY = "empty"  # no keypoints
    MISSING = "missing"  # no file
    UNREADABLE = "unreadable"  # no picture, or no access to the file
    TRUNCATED = "truncated"  # the file ends early
    DAMAGED = "damaged"  # part of the picture is lost
    TOO_LARGE = "too_large"  # over the limit on pixels
    CRASHED = "crashed"  # it ended its worker, or the extractor raised
    UNKNOWN = "unknown"  # imported without descriptors and without a reason


USABLE = (Status.OK, Status.EMPTY)
USABLE_SQL = "(" + ", ".join(f"'{status}'" for status in USABLE) + ")"  # after IN
FAILED = tuple(status for status in Status if status not in USABLE)


@dataclass(frozen=True, slots=True)
class Row:
    """The output of one stage for one image.

    ``descriptors`` is ``(n, dim)``, ``keypoints`` is ``(n,)`` of dtype `KEYPOINT`; both are None unless ``status`` is
    ``ok``. ``extra`` holds the stage's own columns.
    """

    image_id: int
    filename: str
    status: str
    error: str | None = None
    descriptors: NDArray[Any] | None = None
    keypoints: NDArray[Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_descriptors(self) -> int:
        """The number of descriptors, 0 for a failed or empty image."""
        return 0 if self.descriptors is None else len(self.descriptors)


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a partition: ``dim`` values of ``dtype`` a descriptor, and the stage's own columns.

    ``compression`` is that of the descriptors in files to be written. Readers find it in the file, so that it makes no
    layout another.
    """

    dim: int
    dtype: str
    keypoints: bool = True
    extra: tuple[tuple[str, pa.DataType], ...] = ()
    compression: Compression = field(default="zstd", compare=False)

    def schema(self) -> pa.Schema:
        """Return the Arrow schema, in the order of the columns in the file."""
        columns: list[tuple[str, pa.DataType]] = [
            ("image_id", pa.int64()),
            ("filename", pa.string()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("n_descriptors", pa.int32()),
            ("descriptors", pa.binary()),
        ]
        if self.keypoints:
            columns += [(name, pa.list_(pa.from_numpy_dtype(KEYPOINT[name]))) for name in KEYPOINT_COLUMNS]
        return pa.schema([*columns, *self.extra])

    @property
    def outside(self) -> bool:
        """Whether some columns are not part of the payload."""
        return any(name in OUTSIDE for name, _ in self.extra)

    def facts(self) -> list[str]:
        """Return the names of the columns that the catalog keeps."""
        return [name for name in FACTS if name in self.schema().names]

    def matrix(self, blob: Any) -> NDArray[Any]:
        """Return a BLOB as an ``(n, dim)`` matrix, without a copy.

        Raises:
            CorruptFile: the BLOB is not a whole number of descriptors.
        """
        values = np.frombuffer(blob, dtype=np.dtype(self.dtype).newbyteorder("<"))
        if len(values) % self.dim:
            raise CorruptFile(f"a BLOB of {len(values)} values is not a whole number of {self.dim}-value descriptors")
        return values.reshape(-1, self.dim)

    def matrices(self, blobs: pa.ChunkedArray) -> list[NDArray[Any] | None]:
        """Return every BLOB of a column as an ``(n, dim)`` matrix, without a copy; None for NULL.

        Arrow's scalars would each be a copy.

        Raises:
            CorruptFile: a BLOB is not a whole number of descriptors.
        """
        return [matrix for array in blobs.chunks for matrix in self._matrices(array)]

    def _matrices(self, blobs: pa.Array) -> Iterator[NDArray[Any] | None]:
        offsets, values = blob_bytes(blobs)
        ends = (offsets - offsets[0]).tolist()
        for i, valid in enumerate(blobs.is_valid().to_pylist()):
            yield self.matrix(values[ends[i] : ends[i + 1]]) if valid else None


def blob_bytes(blobs: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the offsets ``(n + 1,)`` of the BLOBs in a binary array, and all of their bytes, without a copy.

    A null has no bytes. The first offset is where the bytes begin.
    """
    kind = np.int64 if pa.types.is_large_binary(blobs.type) else np.int32
    _, offsets, values = blobs.buffers()
    if offsets is None or not len(blobs):
        return np.zeros(len(blobs) + 1, np.int64), np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, kind)[blobs.offset : blobs.offset + len(blobs) + 1].astype(np.int64)
    data = np.frombuffer(values, np.uint8) if values is not None and values.size else np.empty(0, np.uint8)
    return ends, data[ends[0] : ends[-1]]
