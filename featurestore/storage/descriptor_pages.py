"""The descriptors of a partition's rows, read or copied page by page where its file allows it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.rows import Layout, unpack
from featurestore.storage.blob_column import copy_column
from featurestore.storage.blob_pages import Page, copy_blob, find_pages, read_blob


class DescriptorPages:
    """The pages of the column ``descriptors``. Errors are those of Arrow, of the system and of damaged pages."""

    def __init__(self, file: Any, source: pa.NativeFile, layout: Layout, local: object | None) -> None:
        """Take an open file.

        Args:
            file: a ``pyarrow.parquet.ParquetFile``.
            source: its bytes.
            layout: of the partition.
            local: where it is; None if it is not in a folder: small reads are dear there.
        """
        self._metadata, self._source, self._layout, self._local = file.metadata, source, layout, local
        names = file.schema_arrow.names
        self._place = names.index("descriptors") if "descriptors" in names else -1
        self._pages: dict[int, tuple[Page, ...]] = {}  # by row group
        self._raw: io.FileIO | None = None  # the same file, for reads straight into arrays

    def close(self) -> None:
        """Close the file that was opened for reads straight into arrays."""
        if self._raw is not None:
            self._raw.close()

    def find(self, row_group: int, row: int) -> Page | None:
        """Return the page of a row; None if single pages can't be read."""
        return next((page for page in self._pages_of(row_group) if page.first <= row < page.first + page.n_rows), None)

    def blob(self, page: Page, row: int) -> Any:
        """Return the BLOB of one row of a page, unpacked, or None."""
        blob = read_blob(self._source, page, row)
        if blob is None or not self._layout.packed:
            return blob
        return unpack(np.frombuffer(blob, np.uint8), self._layout.dim).reshape(-1)

    def copy(self, row_group: int, rows: Sequence[int], targets: Sequence[NDArray[np.uint8]]) -> bool:
        """Copy the unpacked BLOBs of some rows into arrays of their sizes; False if single pages can't be read."""
        if self._copy_all(row_group, rows, targets):
            return True
        pages = {row: page for page in self._pages_of(row_group) for row in range(page.first, page.first + page.n_rows)}
        if not pages:
            return False
        for row, target in zip(rows, targets, strict=True):
            if len(target):
                self._copy(pages[row], row, target)
        return True

    def read(self, row_group: int, counts: Sequence[int]) -> list[NDArray[Any]] | None:
        """Return the descriptors of each row, parts of one array; None if they have to be read in another way.

        Args:
            row_group: of the file.
            counts: the number of descriptors of each of its rows.
        """
        dtype = np.dtype(self._layout.dtype).newbyteorder("<")
        ends = np.cumsum([0, *counts]).tolist()
        values = np.empty((ends[-1], self._layout.dim), dtype)
        flat, width = values.reshape(-1).view(np.uint8), self._layout.dim * dtype.itemsize
        targets = [flat[a * width : b * width] for a, b in pairwise(ends)]
        if not self._copy_all(row_group, range(len(counts)), targets):
            return None
        return [values[a:b] for a, b in pairwise(ends)]

    def _copy_all(self, row_group: int, rows: Sequence[int], targets: Sequence[NDArray[np.uint8]]) -> bool:
        """Copy the BLOBs of all rows; False if these are not all, or it has to be done in another way."""
        group = self._metadata.row_group(row_group)
        if self._local is None or self._layout.packed or len(rows) != group.num_rows:
            return False
        return copy_column(self._raw_file(), group.column(self._place), targets)

    def _copy(self, page: Page, row: int, target: NDArray[np.uint8]) -> None:
        if page.n_rows == 1 and page.codec is None and not self._layout.packed:
            copy_blob(self._raw_file(), page, target)
            return
        blob = self.blob(page, row)
        if blob is None or blob.size != len(target):
            raise ValueError(f"a page holds no BLOB of {len(target)} bytes")
        target[:] = np.frombuffer(blob, np.uint8)

    def _raw_file(self) -> io.FileIO:
        if self._raw is None:
            self._raw = io.FileIO(str(self._local))
        return self._raw

    def _pages_of(self, row_group: int) -> tuple[Page, ...]:
        if row_group not in self._pages:
            column = self._metadata.row_group(row_group).column(self._place)
            self._pages[row_group] = () if self._local is None else find_pages(self._source, column)
        return self._pages[row_group]
