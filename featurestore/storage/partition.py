"""Partitions: Parquet files with one row per image of a chunk, including failed and empty images.

The descriptors of an image are one BLOB: n x dim values, row-major, little-endian. Keypoints are six list columns.
``docs/format.md`` is the contract; this module reads partitions, and `partition_writer` writes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.errors import CorruptFile, FormatError
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS, OUTSIDE, PACKED, Layout, Row, Status, unpack_blobs
from featurestore.storage import manifest as manifests
from featurestore.storage.blob_pages import Page
from featurestore.storage.descriptor_pages import DescriptorPages
from featurestore.storage.hashed_file import open_hashed
from featurestore.storage.list_pages import Places, find_record_pages, read_records
from featurestore.storage.partitions import Place, open_at
from featurestore.system import readable
from featurestore.wording import first_line

FORMAT = 2  # a partition has columns that are no part of its payload, see `OUTSIDE`
PLAIN = 1  # it has none
PACKED_FORMAT = 3  # its values are of 4 bits, two to a byte
MANIFEST_KEY = "featurestore"


DTYPES = ("uint8", "float32", PACKED)
MOST_VALUES = 65_536  # in a descriptor
# Exceptions of Arrow, and of converting its values, for a damaged or malicious file.
DAMAGE = (OSError, pa.ArrowException, ValueError, TypeError, AttributeError)


def partition_name(stage: str, variant: str, chunk_id: int, payload: str) -> str:
    """Return the name of a partition below the root."""
    return f"partitions/{stage}/{variant}/chunk-{chunk_id:06d}-{payload}.parquet"


class PartitionFile:
    """A partition, read a row group at a time."""

    def __init__(self, path: Place, *, hashed: bool = False, copy: IO[bytes] | None = None) -> None:
        """Open the file and read its manifest.

        Args:
            path: of the file; its place, if it is not in the store's folder.
            hashed: take the SHA-256 of its bytes while they are read; see `checksum`.
            copy: of a file that is hashed; it gets all bytes by the time of the checksum.

        Raises:
            CorruptFile: the file is missing, not Parquet, or has no manifest.
            UnreadableFile: the file can't be opened or read.
            FormatError: a newer version wrote the file.
        """
        self.path, self.is_local = path, isinstance(path, Path)  # elsewhere, few large reads are better than many
        try:
            with readable(path):
                self._hashed = open_hashed(path, copy) if hashed else None
                self._source = pa.PythonFile(self._hashed, "r") if hashed else open_at(path)
        except OSError as error:
            raise self._no_partition(error) from error
        try:
            self._read_footer()
        except BaseException:
            self._source.close()
            raise
        self._pages = DescriptorPages(self._file, self._source, self.layout, path if self.is_local else None)
        self._lists: dict[int, list[tuple[Page, ...]]] = {}  # of keypoints

    def _no_partition(self, error: Exception) -> CorruptFile:
        return CorruptFile(f"{self.path.name} can't be read as a partition ({first_line(error)})")

    def _read_footer(self) -> None:
        from pyarrow import parquet

        path = self.path
        try:
            with readable(path):
                few_requests = not self.is_local and self._hashed is None  # in any order
                self._file = parquet.ParquetFile(self._source, pre_buffer=few_requests)
            metadata = {b"dim": b"", b"dtype": b"", MANIFEST_KEY.encode(): b"", **(self._file.metadata.metadata or {})}
            self.manifest: dict[str, Any] = manifests.parse_manifest(metadata[MANIFEST_KEY.encode()])
            dim, dtype = int(metadata[b"dim"]), metadata[b"dtype"].decode()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise self._no_partition(error) from error
        if self.manifest.get("format") not in (PLAIN, FORMAT, PACKED_FORMAT):
            raise FormatError(
                f"{path.name} is of partition format {self.manifest.get('format')}, and this version knows "
                f"{PACKED_FORMAT}; use a newer featurestore"
            )
        if dtype not in DTYPES or not 0 < dim <= MOST_VALUES:
            raise CorruptFile(f"{path.name} says that its descriptors are {dim} values of {_short(dtype)}")
        names = self._file.schema_arrow.names
        known = {"image_id", "filename", "status", "error", "n_descriptors", "descriptors", *KEYPOINT_COLUMNS}
        extra = tuple((f.name, f.type) for f in self._file.schema_arrow if f.name not in known)
        packed = dtype == PACKED
        values = "uint8" if packed else dtype
        self.layout = Layout(dim=dim, dtype=values, keypoints="x" in names, extra=extra, packed=packed)
        self._refuse_other_columns()

    def _refuse_other_columns(self) -> None:
        blobs = {"descriptors"} if self.manifest.get("pruned") is True else set()
        found = self._file.schema_arrow
        for field_ in self.layout.schema():
            if field_.name not in blobs and (
                field_.name not in found.names or found.field(field_.name).type != field_.type
            ):
                raise CorruptFile(f"{self.path.name} has no column {field_.name} of {field_.type}")

    def __enter__(self) -> PartitionFile:
        """Return the open file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()
        self._source.close()
        self._pages.close()

    @property
    def n_bytes(self) -> int:
        """The bytes of the file."""
        return int(self._source.size())

    @property
    def n_row_groups(self) -> int:
        """The number of row groups."""
        return int(self._file.num_row_groups)

    def row_group_sizes(self) -> list[int]:
        """Return the number of rows of each row group."""
        return [self._file.metadata.row_group(i).num_rows for i in range(self.n_row_groups)]

    def rows(self, row_groups: Iterable[int] | None = None, *, without: Sequence[str] = ()) -> Iterator[Row]:
        """Yield the rows of some row groups (None: all), without the columns in ``without``.

        Raises:
            CorruptFile: a row group can't be decoded.
            UnreadableFile: a row group can't be read.
        """
        columns = [name for name in self.layout.schema().names if name not in without]
        for index in range(self.n_row_groups) if row_groups is None else row_groups:
            yield from self._straight(index, columns) or self.rows_of(self.table(index, columns))

    def _straight(self, row_group: int, columns: Sequence[str]) -> list[Row]:
        """Return the rows of a row group, with descriptors that Arrow has not copied; none if that can't be done."""
        if self._hashed is not None or not {"descriptors", "n_descriptors", "status"} <= set(columns):
            return []
        rows = list(self.rows_of(others := self.table(row_group, [name for name in columns if name != "descriptors"])))
        counts = others["n_descriptors"].to_pylist()
        if any((count or 0) <= 0 for row, count in zip(rows, counts, strict=True) if row.status == Status.OK):
            return []
        try:
            with readable(self.path):
                found = self._pages.read(row_group, counts)
        except (*DAMAGE, IndexError) as error:
            raise CorruptFile(f"{self.path.name} is damaged ({first_line(error)})") from error
        if found is None:
            return []
        return [replace(row, descriptors=d) if len(d) else row for row, d in zip(rows, found, strict=True)]

    def table(self, row_group: int, columns: Sequence[str]) -> pa.Table:
        """Return some columns of one row group; those of `OUTSIDE` are null where the file does not have them.

        Packed descriptors are unpacked.

        Raises:
            CorruptFile: the row group can't be decoded.
            UnreadableFile: the row group can't be read.
        """
        try:
            with readable(self.path):
                in_order = self._hashed is not None  # threads would read the columns in any order
                found = self._file.read_row_group(row_group, columns=list(columns), use_threads=not in_order)
            if self.layout.packed and "descriptors" in found.column_names:
                at, blobs = found.column_names.index("descriptors"), found["descriptors"]
                found = found.set_column(at, found.field(at), unpack_blobs(blobs, self.layout.dim))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise CorruptFile(f"{self.path.name} is damaged ({first_line(error)})") from error
        for name in (OUTSIDE.keys() & columns) - set(found.column_names):
            found = found.append_column(name, pa.nulls(len(found), OUTSIDE[name]))
        return found

    def checksum(self) -> str:
        """Return the SHA-256 of the file's bytes, in hex; only of a file that was opened as ``hashed``.

        Raises:
            UnreadableFile: it can't be read to its end.
        """
        assert self._hashed is not None
        with readable(self.path):
            return self._hashed.hexdigest()

    def descriptors(self, row_group: int, row: int) -> NDArray[Any] | None:
        """Return the descriptors of one row of a row group, ``(n, dim)``; None unless its status is ``ok``.

        Little more than their own bytes is read of a local file. The row group is read of one that is elsewhere, and of
        one of an early version, which has a page a row group.

        Raises:
            CorruptFile: they can't be decoded.
            UnreadableFile: they can't be read.
        """
        try:
            with readable(self.path):
                page = self._pages.find(row_group, row)
                blob = self._pages.blob(page, row) if page is not None else None
        except (*DAMAGE, IndexError) as error:
            raise CorruptFile(f"{self.path.name} is damaged ({first_line(error)})") from error
        if page is None:
            return self.layout.matrices(self.table(row_group, ["descriptors"])["descriptors"])[row]
        return None if blob is None else self.layout.matrix(blob)

    def keypoints(
        self, row_group: int, row: int, places: Places, columns: Collection[str] = KEYPOINT_COLUMNS
    ) -> NDArray[Any] | None:
        """Return the keypoints of one row of a row group; None if they have to be read as a `table`.

        Little more than their own bytes is read. Files of early versions have other pages, and imported descriptors no
        keypoints.

        Args:
            row_group: of the file.
            row: in the row group.
            places: of the row group, by its ``n_descriptors``.
            columns: that are read; the others are 0.

        Raises:
            CorruptFile: they can't be decoded.
            UnreadableFile: they can't be read.
        """
        try:
            with readable(self.path):
                if not self.is_local:
                    return None  # small reads are dear there
                if row_group not in self._lists:
                    group = self._file.metadata.row_group(row_group)
                    self._lists[row_group] = find_record_pages(self._source, group, KEYPOINT_COLUMNS)
                return read_records(self._source, self._lists[row_group], places, row, KEYPOINT, names=columns)
        except (*DAMAGE, IndexError) as error:
            raise CorruptFile(f"{self.path.name} is damaged ({first_line(error)})") from error

    def copy_descriptors(self, row_group: int, rows: Sequence[int], targets: Sequence[NDArray[np.uint8]]) -> bool:
        """Copy the unpacked bytes of the descriptors of some rows of a row group into arrays of their sizes.

        A page of one row goes straight to its place. Returns False, and copies nothing, for a row group of one page, as
        in files of early versions: read it as a `table`.

        Raises:
            CorruptFile: a page can't be decoded, or does not hold as many bytes as its array.
            UnreadableFile: a page can't be read.
        """
        try:
            with readable(self.path):
                return self._pages.copy(row_group, rows, targets)
        except (*DAMAGE, IndexError) as error:
            raise CorruptFile(f"{self.path.name} is damaged ({first_line(error)})") from error

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return some columns of the whole file.

        Raises:
            CorruptFile: they can't be decoded.
            UnreadableFile: they can't be read.
        """
        known = self._file.schema_arrow.names
        if self._hashed is None and all(name in known and name != "descriptors" for name in names):
            return self._read_columns(names)
        groups = [self.table(index, names).select(names) for index in range(self.n_row_groups)]
        schema = pa.schema([(name, OUTSIDE.get(name) or self._file.schema_arrow.field(name).type) for name in names])
        return pa.concat_tables(groups) if groups else schema.empty_table()

    def _read_columns(self, names: Sequence[str]) -> pa.Table:
        try:
            with readable(self.path):
                return self._file.read(columns=list(names), use_threads=False).select(names)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise CorruptFile(f"{self.path.name} is damaged ({first_line(error)})") from error

    def rows_of(self, table: pa.Table) -> Iterator[Row]:
        """Yield the rows of a table with some of this partition's columns; missing ones are left empty.

        Raises:
            CorruptFile: the values are not valid rows.
        """
        try:
            with readable(self.path):
                yield from self._rows_of(table)
        except DAMAGE as error:
            raise CorruptFile(f"{self.path.name} is damaged ({first_line(error)})") from error

    def _rows_of(self, table: pa.Table) -> Iterator[Row]:
        column = {name: _array(table[name]) for name in table.column_names if name != "descriptors"}
        plain = {
            name: column[name].to_pylist()
            for name in ("image_id", "filename", "status", "error", *(n for n, _ in self.layout.extra))
            if name in column
        }
        none: list[NDArray[Any] | None] = [None] * table.num_rows
        descriptors = self.layout.matrices(table["descriptors"]) if "descriptors" in table.column_names else none
        keypoints = _keypoints(column) if "x" in column else none
        for i in range(table.num_rows):
            yield Row(
                image_id=plain["image_id"][i],
                filename=plain["filename"][i],
                status=plain["status"][i],
                error=plain["error"][i],
                descriptors=descriptors[i],
                keypoints=keypoints[i],
                extra={name: plain[name][i] for name, _ in self.layout.extra if name in plain},
            )


def _array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, without a copy if it is one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _keypoints(columns: Mapping[str, pa.Array]) -> list[NDArray[Any] | None]:
    """Return the keypoints of every row, parts of one array.

    Raises:
        ValueError: the six columns have lists of different lengths.
    """
    offsets = columns["x"].offsets
    ends, valid = offsets.to_pylist(), columns["x"].is_valid().to_pylist()
    first, last = ends[0], ends[-1]  # of the values, of which a slice of a table has all
    keypoints = np.empty(last - first, dtype=KEYPOINT)
    for name in KEYPOINT_COLUMNS:
        if not columns[name].offsets.equals(offsets):
            raise ValueError(f"{name} has another number of keypoints than x")
        values = columns[name].values.slice(first, last - first)
        keypoints[name] = np.from_dlpack(values)  # Arrow's to_numpy imports pandas: 0.3 s a worker
    return [keypoints[ends[i] - first : ends[i + 1] - first] if has else None for i, has in enumerate(valid)]


def _short(text: str) -> str:
    return repr(text[:20])
