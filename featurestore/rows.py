"""Rows: a stage's output for one image, and the columns of a partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.arrow_arrays import validity_of
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


PACKED = "uint4"  # the dtype of files that have two values to a byte
LARGEST_NIBBLE = 15
# The two codes of each byte, as two bytes.
_NIBBLES = np.stack([np.arange(256) & 15, np.arange(256) >> 4], axis=1).astype(np.uint8).view(np.uint16)[:, 0]

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

    ``packed`` says that files have two values to a byte, see `pack`; rows have a byte each, of dtype uint8.
    ``compression`` is that of the descriptors in files to be written. Readers find it in the file, so that it makes no
    layout another.
    """

    dim: int
    dtype: str
    keypoints: bool = True
    extra: tuple[tuple[str, pa.DataType], ...] = ()
    packed: bool = False
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
    def stored_dtype(self) -> str:
        """The name of the values' dtype in files."""
        return PACKED if self.packed else self.dtype

    @property
    def outside(self) -> bool:
        """Whether some columns are not part of the payload."""
        return any(name in OUTSIDE for name, _ in self.extra)

    def facts(self) -> list[str]:
        """Return the names of the columns that the catalog keeps."""
        return [name for name in FACTS if name in self.schema().names]

    def matrix(self, blob: Any) -> NDArray[Any]:
        """Return a BLOB as an ``(n, dim)`` matrix, without a copy. One of a packed file is unpacked before.

        Raises:
            CorruptFile: the BLOB is not a whole number of descriptors.
        """
        values = np.frombuffer(blob, dtype=np.dtype(self.dtype).newbyteorder("<"))
        if len(values) % self.dim:
            raise CorruptFile(f"a BLOB of {len(values)} values is not a whole number of {self.dim}-value descriptors")
        return values.reshape(-1, self.dim)

    def matrices(self, blobs: pa.ChunkedArray) -> list[NDArray[Any] | None]:
        """Return every BLOB of a column as an ``(n, dim)`` matrix, without a copy; None for NULL.

        Arrow's scalars would each be a copy. BLOBs of a packed file are unpacked before, by `unpack_blobs`.

        Raises:
            CorruptFile: a BLOB is not a whole number of descriptors.
        """
        return [matrix for array in blobs.chunks for matrix in self._matrices(array)]

    def _matrices(self, blobs: pa.Array) -> Iterator[NDArray[Any] | None]:
        offsets, values = blob_bytes(blobs)
        ends = (offsets - offsets[0]).tolist()
        for i, valid in enumerate(blobs.is_valid().to_pylist()):
            yield self.matrix(values[ends[i] : ends[i + 1]]) if valid else None


def pack(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return codes of 4 bits two to a byte: ``(n, ceil(dim / 2))`` uint8 of ``(n, dim)``, the first in the low bits.

    Each descriptor begins with a byte of its own: where ``dim`` is odd, the high bits of its last byte are 0.

    Raises:
        ValueError: a code is above 15.
    """
    if codes.size and codes.max() > LARGEST_NIBBLE:
        raise ValueError(f"a code of {codes.max()} does not fit into 4 bits")
    packed = codes[:, ::2].copy()
    packed[:, : codes.shape[1] // 2] |= codes[:, 1::2] << 4
    return packed


def unpack(packed: NDArray[np.uint8], dim: int) -> NDArray[np.uint8]:
    """Return the codes ``(n, dim)`` uint8 of any number of whole packed descriptors, see `pack`.

    Raises:
        ValueError: they are not whole, or the bits after the last value of one are not 0.
    """
    width = (dim + 1) // 2
    if packed.size % width:
        raise ValueError(f"{packed.size} bytes are not a whole number of descriptors of {dim} values of 4 bits")
    codes = _NIBBLES[packed.reshape(-1)].view(np.uint8).reshape(-1, 2 * width)
    if codes[:, dim:].any():
        raise ValueError(f"a descriptor of {dim} values of 4 bits has other bits after these")
    return np.ascontiguousarray(codes[:, :dim])


def unpack_blobs(blobs: pa.Array | pa.ChunkedArray, dim: int) -> pa.Array:
    """Return packed BLOBs as those of a byte for each value; NULL stays NULL.

    Raises:
        ValueError: a BLOB is not a whole number of descriptors, or they are too many for one array.
    """
    joined = blobs.combine_chunks() if isinstance(blobs, pa.ChunkedArray) else blobs
    ends, packed = blob_bytes(joined)
    starts, rest = np.divmod(ends - ends[0], (dim + 1) // 2)
    if rest.any():
        raise ValueError(f"a BLOB is not a whole number of descriptors of {dim} values of 4 bits")
    if starts[-1] * dim > np.iinfo(np.int32).max:
        raise ValueError(f"{starts[-1]} descriptors in one row group")
    valid = validity_of(joined.is_valid().to_pylist())
    buffers = [valid, pa.py_buffer((starts * dim).astype(np.int32)), pa.py_buffer(unpack(packed, dim))]
    return pa.Array.from_buffers(pa.binary(), len(joined), buffers)


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
