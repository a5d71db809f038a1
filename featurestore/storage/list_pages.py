"""Single lists of a partition, each read with no more of the file than the data pages that it is on.

Arrow reads whole row groups: keypoints of forty images for those of one. Pages have levels, which say where lists begin
and which are NULL, and then the values. The number of values of each row is known, and it says the same, so that levels
are not decoded; their number, and the size of each page, have to agree with it. See `blob_pages`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
        self._borders: dict[int, NDArray[np.int64]] = {}  # of a column, by where it begins in the file

    def borders(self, pages: tuple[Page, ...]) -> NDArray[np.int64]:
        """Return where the values of each page of a column begin, and the last ones end, ``(pages + 1,)``."""
        column = pages[0].offset
        if column not in self._borders:
            levels = np.array([*(page.first for page in pages), pages[-1].first + pages[-1].n_rows])
            row = np.searchsorted(self.levels, levels, side="right") - 1
            counts = np.append(self.counts, 0)[row]
            self._borders[column] = self.values[row] + np.minimum(levels - self.levels[row], counts)
        return self._borders[column]


def read_records(
    file: pa.NativeFile,
    columns: Sequence[tuple[Page, ...]],
    places: Places,
    row: int,
    dtype: np.dtype[Any],
    *,
    names: Collection[str] | None = None,
) -> NDArray[Any] | None:
    """Return the records of a row of a row group, whose fields are columns of lists; see `read_list`.

    Fields that are not among ``names`` are 0, and their pages are not read.
    """
    records = np.zeros(int(places.counts[row]), dtype)
    for name, pages in zip(dtype.names or (), columns, strict=True):
        if names is None or name in names:
            found = read_list(file, pages, places, row, dtype[name])
            if found is None:
                return None
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
    start, borders = int(places.values[row]), places.borders(pages)
    found = np.empty((int(places.counts[row]), dtype.itemsize), np.uint8)
    at = max(0, int(np.searchsorted(borders, start, side="right")) - 1)
    for page, low, high in zip(pages[at:], borders[at:].tolist(), borders[at + 1 :].tolist(), strict=False):
        first, last = max(start, low), min(start + len(found), high)
        if low >= start + len(found):
            break
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
