"""Parquet files as a source, as Hugging Face's ``datasets`` writes them: a column of ``struct<bytes, path>``.

Rows have no names, so an image is called by its row, with the base name of its path where there is one. Rows are read
one after the other: to go back means to read their row group again, but for a window of the last ones.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from featurestore.errors import DatasetError
from featurestore.images.sources.base import HEAD, Damaged, Entry, Missing, ReadFailed, Source, TooLarge
from featurestore.images.sources.container import Archive, Container, FileState, plain
from featurestore.system import lacking, reason_unreadable, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

KEPT = 2**26  # bytes of images in the window
ROWS = 16  # read together
NAMES = 1000  # whose paths are read together
LONGEST = 200  # characters of a path's base name
DIGITS = 12  # of the number of a row
BUFFER = 2**20  # bytes of the file; without, whole columns are read at once
NO_BYTES = (
    "the Parquet file has no bytes of this image{}; write it again with them: map(embed_table_storage, batched=True) "
    "of Hugging Face's datasets, before to_parquet"
)


class ParquetArchive(Archive):
    """An open Parquet file with a column of images."""

    def __init__(self, path: Path, state: FileState) -> None:
        """Open the file and read its footer."""
        super().__init__(path, state)
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file = pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            if reason_unreadable(error) is not None or isinstance(error, FileNotFoundError):
                raise
            raise DatasetError(f"{path} is not a whole Parquet file ({_words(error)}); get it again") from error
        column = image_column(self._file.schema_arrow)
        if column is None:
            raise DatasetError(
                f"{path} has no column of images, a struct of binary bytes and a text path; its columns are "
                f"{', '.join(self._file.schema_arrow.names)}. Give --images the files that hold the images"
            )
        self.column = column
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]  # the first row of each row group, and the end
        self._names = dict[int, list[str]]()  # by row group
        self._kept = OrderedDict[int, bytes | None]()
        self._kept_bytes = 0
        self._rows: Iterator[pa.RecordBatch] = iter(())
        self._next = self._end = 0  # the rows that are still to come

    def entries(self) -> Iterator[Entry]:
        """Yield the rows."""
        for group in range(len(self._starts) - 1):
            try:
                names = self._names_in(group)
            except Damaged as error:
                raise DatasetError(f"{self.path}: {error}; get it again") from error
            except ReadFailed as error:
                raise unreadable(self.path, str(error)) from error
            for name in names:
                yield Entry(name, None, self.state.mtime_ns)

    def stat(self, name: str) -> Entry:
        """Return the time of the file; only reading tells the size of an image."""
        try:
            self._row(name)
        except ReadFailed as error:
            raise unreadable(self.path, str(error)) from error
        return Entry(name, None, self.state.mtime_ns)

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a row."""
        import pyarrow as pa

        row = self._row(name)
        try:
            if row not in self._kept:
                self._go_to(row)
        except (pa.ArrowException, OSError, ValueError) as error:
            self._rows, self._next, self._end = iter(()), 0, 0
            raise _unread(error) from error
        data = self._kept[row]
        if data is None:
            raise Missing(NO_BYTES.format(", only its path" if "-" in name else ""))
        if len(data) > limit:
            raise TooLarge(len(data), data[:HEAD])
        return data

    def close(self) -> None:
        """Close the file."""
        self._rows = iter(())
        self._file.close()

    def _row(self, name: str) -> int:
        number = name.partition("-")[0]
        if number.isdecimal() and len(number) <= DIGITS and (row := int(number)) < self._starts[-1]:
            group = self._group(row)
            names, at = self._names_in(group), row - self._starts[group]
            if at < len(names) and names[at] == name:
                return row
        raise Missing(f"{self.path.name} has no row of this name")

    def _names_in(self, group: int) -> list[str]:
        """Return the names of a row group's images."""
        import pyarrow as pa

        if group not in self._names:
            row, names = self._starts[group], list[str]()
            column = [f"{self.column}.path"]
            try:
                for batch in self._file.iter_batches(NAMES, row_groups=[group], columns=column, use_threads=False):
                    for path in self._values(batch, "path"):
                        names.append(_name(row + len(names), path))
            except (pa.ArrowException, OSError, ValueError) as error:
                raise _unread(error) from error
            self._names[group] = names
        return self._names[group]

    def _values(self, batch: pa.RecordBatch, field: str) -> list[Any]:
        """Return a field of the images; the batch also has a column that is called ``image.path`` itself."""
        import pyarrow.compute as pc

        images = batch.column(batch.schema.names.index(self.column))
        return cast(list[Any], pc.struct_field(images, field).to_pylist())

    def _group(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _go_to(self, row: int) -> None:
        """Read rows into the window, up to ``row``."""
        if not self._next <= row < self._end:
            group = self._group(row)
            self._next, self._end = self._starts[group], self._starts[group + 1]
            self._rows = self._file.iter_batches(
                ROWS, row_groups=[group], columns=[f"{self.column}.bytes"], use_threads=False
            )
        while row not in self._kept:
            batch = next(self._rows, None)
            if batch is None:
                raise ValueError("it has fewer rows than it says")
            self._keep(batch)

    def _keep(self, batch: pa.RecordBatch) -> None:
        for data in self._values(batch, "bytes"):
            if self._next not in self._kept:
                self._kept_bytes += len(data or b"")
            self._kept[self._next] = data
            self._kept.move_to_end(self._next)
            self._next += 1
        while self._kept_bytes > KEPT and len(self._kept) > ROWS:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1] or b"")


def shards_of(source: Source) -> list[Path]:
    """Return the Parquet files of a source, in the order of its images; other sources have none."""
    if isinstance(source, Container) and source.archive is ParquetArchive:
        return list(source.files.values())
    return []


def image_column(schema: pa.Schema) -> str | None:
    """Return the column of images, a struct of ``bytes`` and ``path``: ``image`` if several are; None if none is."""
    found = [field.name for field in schema if _is_image(field.type)]
    return "image" if "image" in found else next(iter(found), None)


def _is_image(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return False
    fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    data = (pa.binary(), pa.large_binary(), pa.binary_view())
    text = (pa.string(), pa.large_string(), pa.string_view(), pa.null())
    return fields.get("bytes") in data and fields.get("path") in text


def _name(row: int, path: str | None) -> str:
    base = posixpath.basename(plain(path.replace("\\", "/")) or "")[-LONGEST:] if path else ""
    return f"{row:06d}-{base}" if base else f"{row:06d}"


def _unread(error: Exception) -> Exception:
    """Return the error of an image whose row group can't be read; one of a lack of memory as it is."""
    if lacking(error):
        return error
    if (reason := reason_unreadable(error)) is not None:
        return ReadFailed(reason)
    return Damaged(f"the Parquet file is damaged at its row group ({_words(error)})")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
