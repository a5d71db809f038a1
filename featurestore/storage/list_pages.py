"""Single lists of a partition, each read with no more of the file than the data pages that it is on.

Arrow reads whole row groups: keypoints of forty images for those of one. Pages have levels, which say where lists begin
and which are NULL, and then the values. The number of values of each row is known, and it says the same, so that levels
are not decoded; their number, and the size of each page, have to agree with it. See `blob_pages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.storage.blob_pages import Page, read_page, walk_pages

BYTE_STREAM_SPLIT = 9  # of the enumeration Encoding: first the first byte of each value, then the second of each


def find_record_pages(file: pa.NativeFile, row_group: Any, names: Sequence[str]) -> list[tuple[Page, ...]]:
    """Return the pages of columns of lists in one row group; none of a column that is encoded in another way.

    Args:
        file: the Parquet file.
        row_group: a ``pyarrow.parquet.RowGroupMetaData``.
        names: of the columns, all of which are there.
    """
    columns = {row_group.column(i).path_in_schema.partition(".")[0]: i for i in range(row_group.num_columns)}
    return [walk_pages(file, row_group.column(columns[name]), BYTE_STREAM_SPLIT) for name in names]


class Places:
    """Where the values of each row of a row group are, in levels and in values."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        """Take the number of values of each row; an empty list, and NULL, has a level nevertheless."""
        self.counts = counts
        self.levels = np.concatenate([[0], np.cumsum(np.maximum(counts, 1))])
        self.values = np.concatenate([[0], np.cumsum(counts)])

    def before(self, level: int) -> int:
        """Return the number of values before a level."""
        row = int(np.searchsorted(self.levels, level, side="right")) - 1
        if row == len(self.counts):
            return int(self.values[-1])
        return int(self.values[row] + min(level - self.levels[row], self.counts[row]))


def read_records(
    file: pa.NativeFile, columns: Sequence[tuple[Page, ...]], places: Places, row: int, dtype: np.dtype[Any]
) -> NDArray[Any] | None:
    """Return the records of a row of a row group, whose fields are columns of lists; see `read_list`."""
    names = dtype.names or ()
    values = []
    for name, pages in zip(names, columns, strict=True):
        found = read_list(file, pages, places, row, dtype[name])
        if found is None:
            return None
        values.append(found)
    records = np.empty(int(places.counts[row]), dtype)
    for name, found in zip(names, values, strict=True):
        records[name] = found
    return records


def read_list(
    file: pa.NativeFile, pages: tuple[Page, ...], places: Places, row: int, dtype: np.dtype[Any]
) -> NDArray[Any] | None:
    """Return the values of a row of a row group; None if the pages have others than ``places`` says.

    Raises:
        pyarrow.ArrowException, OSError: a page can't be decompressed, or can't be read.
        ValueError: a page is damaged.
    """
    if not pages or pages[-1].first + pages[-1].n_rows != places.levels[-1]:
        return None
    start = int(places.values[row])
    found = np.empty((int(places.counts[row]), dtype.itemsize), np.uint8)
    for page in pages:
        low, high = places.before(page.first), places.before(page.first + page.n_rows)
        first, last = max(start, low), min(start + len(found), high)
        if first < last:
            planes = _planes(read_page(file, page), high - low, dtype.itemsize)
            if planes is None:
                return None
            found[first - start : last - start] = planes[:, first - low : last - low].T
    return found.view(dtype.newbyteorder("<")).reshape(-1)


def _planes(data: pa.Buffer, n: int, size: int) -> NDArray[np.uint8] | None:
    """Return the bytes of ``n`` values, ``(size, n)``; None if the page has another number."""
    at = 0
    for _ in range(2):  # where lists begin, and which are NULL
        at += 4 + int.from_bytes(data[at : at + 4], "little")
    if at + n * size != data.size:
        return None
    return np.frombuffer(data, np.uint8, offset=at).reshape(size, n)
