"""Writing a partition, a row group at a time, in a background thread.

Hashing, compressing and writing release the GIL, so the next rows are computed meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.arrow_arrays import arrow_column, arrow_lists
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS, Layout, Row, pack
from featurestore.storage.partition import MANIFEST_KEY, PACKED_FORMAT
from featurestore.storage.row_digest import RowDigest
from featurestore.system import ready_thread

# Small enough to read one image in milliseconds and to keep little in memory; large enough to scan fast.
ROW_GROUP_BYTES = 4 << 20
ROW_GROUP_ROWS = 1024
ZSTD_LEVEL = 1  # of a higher one descriptors, which are close to noise, gain next to nothing
# A page ends with the value that fills it: a BLOB has its own page, and the other columns one for many rows.
PAGE_BYTES = 32 << 10
BUFFER_BYTES = 64 << 10  # of the file; what is larger, as the pages of most images are, is not copied to it


class PartitionWriter:
    """Writes rows to a Parquet file. It holds two row groups: one to be filled, and one being written."""

    def __init__(self, path: Path, *, layout: Layout, manifest: Mapping[str, Any]) -> None:
        """Open ``path`` for rows of ``layout``; `close` adds the ``payload`` to the manifest."""
        self._layout, self._manifest = layout, dict(manifest)
        if layout.packed:
            self._manifest["format"] = PACKED_FORMAT
        self._digest = RowDigest(str(manifest["input_payload"]))
        self._rows: list[Row] = []
        self._pending = 0
        from pyarrow import parquet  # late: half as long to import as all of pyarrow, and `status` does without

        self._file = _DigestedFile(path)
        self._writer = parquet.ParquetWriter(self._file, layout.schema(), **_parquet_options(layout))
        self._thread = ready_thread()
        self._writing: Future[None] | None = None
        self.payload = self.checksum = ""  # of the rows, and of the file: known at the end
        self.statuses: Counter[str] = Counter()  # of the rows so far
        self.n_descriptors = 0
        self._facts = list[pa.Table]()

    def write(self, row: Row) -> None:
        """Add the row of the next image. A write error may be raised by a later call.

        Raises:
            OSError: the disk is full, or fails.
        """
        # As the file will have it: a failed image lacks values for the stage's columns, but the file has these columns.
        extra = {name: row.extra.get(name) for name, _ in self._layout.extra}
        self._rows.append(replace(row, extra=extra, keypoints=row.keypoints if self._layout.keypoints else None))
        self.statuses[row.status] += 1
        self.n_descriptors += row.n_descriptors
        self._pending += 0 if row.descriptors is None else row.descriptors.nbytes
        if self._pending >= ROW_GROUP_BYTES or len(self._rows) >= ROW_GROUP_ROWS:
            self._flush()

    def close(self, **more: Any) -> None:
        """Write the remaining rows, the manifest and the footer.

        Args:
            more: entries of the manifest that are known only at the end.

        Raises:
            OSError: the disk is full, or fails.
        """
        self._flush()
        self._wait()
        self._thread.shutdown()
        self.payload = self._digest.hexdigest()
        self._writer.add_key_value_metadata(
            {
                MANIFEST_KEY: json.dumps({**self._manifest, **more, "payload": self.payload}, sort_keys=True),
                "dim": str(self._layout.dim),
                "dtype": self._layout.stored_dtype,
            }
        )
        self._writer.close()
        self._file.close()
        self.checksum = self._file.digest.hexdigest()

    @property
    def facts(self) -> pa.Table:
        """The columns of `Layout.facts` of all rows so far."""
        names = self._layout.facts()
        schema = pa.schema([self._layout.schema().field(name) for name in names])
        return pa.concat_tables([pa.Table.from_batches([], schema), *self._facts])

    def abandon(self) -> None:
        """Close the file without finishing it; the caller removes it."""
        self._thread.shutdown()
        try:
            self._writer.close()
            self._file.close()
        except OSError:  # the disk is still full, and the file will be deleted anyway
            pass

    def _flush(self) -> None:
        if self._rows:
            self._wait()
            self._writing = self._thread.submit(self._write_group, self._rows)
            self._rows, self._pending = [], 0

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write_group(self, rows: list[Row]) -> None:
        for row in rows:
            self._digest.update(row)
        table = to_table(rows, self._layout)
        self._facts.append(table.select(self._layout.facts()))
        self._writer.write_table(table)


class _DigestedFile(io.BufferedWriter):
    """A new file whose SHA-256 is known once it is written: it need not be read again.

    It replaces a file of an earlier attempt, whose writer may live for a moment after its parent was killed.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        super().__init__(io.FileIO(path, "x"), buffer_size=BUFFER_BYTES)
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return super().write(data)


def to_table(rows: Sequence[Row], layout: Layout) -> pa.Table:
    """Return rows as one Arrow table with ``layout``'s columns, as files have them: packed if the layout says so."""
    schema = layout.schema()
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    columns: dict[str, Any] = {
        "image_id": [row.image_id for row in rows],
        "filename": [row.filename for row in rows],
        "status": [row.status for row in rows],
        "error": [row.error for row in rows],
        "n_descriptors": [row.n_descriptors for row in rows],
        **{name: [row.extra.get(name) for row in rows] for name, _ in layout.extra},
    }
    arrays = {name: arrow_column(values, schema.field(name).type) for name, values in columns.items()}
    matrices = [None if row.descriptors is None else np.asarray(row.descriptors, dtype) for row in rows]
    if layout.packed:
        matrices = [None if matrix is None else pack(matrix) for matrix in matrices]
    arrays["descriptors"] = _blobs([None if matrix is None else matrix.reshape(-1) for matrix in matrices])
    if layout.keypoints:
        lengths = [None if row.keypoints is None else len(row.keypoints) for row in rows]
        for name in KEYPOINT_COLUMNS:
            values = [None if row.keypoints is None else row.keypoints[name] for row in rows]
            arrays[name] = arrow_lists(_joined(values, KEYPOINT[name]), lengths, schema.field(name).type)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _blobs(matrices: Sequence[NDArray[Any] | None]) -> pa.ChunkedArray:
    """Return each array's bytes as a BLOB, not copied: each is a chunk of its own."""
    kind = pa.binary()
    return pa.chunked_array([pa.nulls(1, kind) if m is None else _blob(m, kind) for m in matrices], kind)


def _blob(matrix: NDArray[Any], kind: pa.DataType) -> pa.Array:
    offsets = np.array([0, matrix.nbytes], np.int32)  # an image of 2 GiB or more is an error
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(offsets), pa.py_buffer(matrix)])


def _joined(arrays: Sequence[NDArray[Any] | None], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(array for array in arrays if array is not None)])


def _parquet_options(layout: Layout) -> dict[str, Any]:
    # Descriptors do not repeat: dictionaries and min/max statistics of them would only cost time and footer space.
    leaves = [f"{name}.list.element" for name in KEYPOINT_COLUMNS] if layout.keypoints else []
    return {
        **_compression(layout),
        "use_dictionary": ["status", "error"],
        "write_statistics": ["image_id", "n_descriptors"],
        "column_encoding": dict.fromkeys(leaves, "BYTE_STREAM_SPLIT"),
        "data_page_size": PAGE_BYTES,
        "write_batch_size": 1,
    }


def _compression(layout: Layout) -> dict[str, Any]:
    """Return Parquet's options for the codec of every column."""
    if layout.compression == "zstd":
        return {"compression": "zstd", "compression_level": ZSTD_LEVEL}
    others = [path for path in _paths(layout.schema()) if path != "descriptors"]
    codecs = dict.fromkeys(others, "zstd") | {"descriptors": "none"}
    return {"compression": codecs, "compression_level": dict.fromkeys(others, ZSTD_LEVEL)}


def _paths(schema: pa.Schema) -> list[str]:
    """Return the names that Parquet gives its columns, such as ``x.list.element``."""
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_batches([], schema), sink)
    columns = parquet.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [columns.column(i).path for i in range(len(columns))]
