"""All BLOBs of a row group, copied to their places page after page.

One read takes the data of a page, straight to its place where it is not compressed, and the header of the next page. So
there is one system call an image, and a walk over the headers before costs as much as the data. See `blob_pages`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.storage.blob_pages import CODECS, HEADER_BYTES, PLAIN, check_head, read_header, read_levels


def copy_column(file: io.FileIO, column: Any, targets: Sequence[NDArray[np.uint8]]) -> bool:
    """Copy every BLOB of a flat, nullable column in one row group; False if it has pages of another kind.

    Then part of the arrays may have been written.

    Args:
        file: the Parquet file.
        column: a ``pyarrow.parquet.ColumnChunkMetaData``.
        targets: an array of its size for each row; an empty one for NULL.

    Raises:
        pyarrow.ArrowException, OSError: a page can't be decompressed, or can't be read.
        ValueError, IndexError: a page is damaged, or a BLOB has another size.
    """
    if column.has_dictionary_page or column.compression not in CODECS or column.num_values != len(targets):
        return False
    reader = _Reader(file, CODECS[column.compression])
    at, row = column.data_page_offset, 0
    end = at + column.total_compressed_size
    os.preadv(file.fileno(), [reader.ahead], at)
    while row < len(targets):
        found = read_header(reader.ahead, PLAIN)
        if found is None:
            return False
        n_rows, n_plain, n_bytes, n_header = found
        at += n_header
        if n_rows == len(targets) > 1 or n_plain > column.total_uncompressed_size or at + n_bytes > end:
            return False
        reader.copy(at, n_bytes, n_plain, targets[row : row + n_rows])
        at, row = at + n_bytes, row + n_rows
    return bool(at == end)


class _Reader:
    """Reads pages, and with each of them the bytes of the next header: ``ahead``."""

    def __init__(self, file: io.FileIO, codec: str | None) -> None:
        self._file, self._codec = file.fileno(), None if codec is None else pa.Codec(codec)
        self._scratch = bytearray()
        self.ahead = bytearray(HEADER_BYTES)

    def copy(self, at: int, n_bytes: int, n_plain: int, targets: Sequence[NDArray[np.uint8]]) -> None:
        """Copy the BLOBs of the page whose data is at ``at``."""
        if self._codec is None and len(targets) == 1 and len(targets[0]):
            head = bytearray(max(0, n_plain - len(targets[0])))
            self._read([head, targets[0].data], n_plain, at)
            check_head(head, len(targets[0]))
            return
        if len(self._scratch) < n_bytes:
            self._scratch = bytearray(n_bytes + n_bytes // 4)
        view = memoryview(self._scratch)[:n_bytes]
        self._read([view], n_bytes, at)
        data = view if self._codec is None else self._codec.decompress(view, n_plain)
        values = np.frombuffer(data, np.uint8)
        if len(values) != n_plain:
            raise ValueError(f"a page of {n_plain} bytes has {len(values)}")
        _split(values, targets)

    def _read(self, parts: list[Any], n_bytes: int, at: int) -> None:
        """Read so many bytes into ``parts``, and what follows into ``ahead``, if the file does not end there."""
        if os.preadv(self._file, [*parts, self.ahead], at) < n_bytes:
            raise ValueError("the file ends in the middle of a page")


def _split(data: NDArray[np.uint8], targets: Sequence[NDArray[np.uint8]]) -> None:
    """Copy the BLOBs of a page to their places."""
    at = 4 + int.from_bytes(data[:4].tobytes(), "little")
    for valid, target in zip(read_levels(data[4:at].tobytes(), len(targets)), targets, strict=False):
        size = int.from_bytes(data[at : at + 4].tobytes(), "little") if valid else 0
        if size != len(target):
            raise ValueError(f"a BLOB of {size} bytes, where there should be {len(target)}")
        at += 4 if valid else 0
        target[:] = data[at : at + size]
        at += size
