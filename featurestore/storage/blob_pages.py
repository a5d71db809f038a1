"""Single BLOBs of a partition, each read with no more of the file than its data page.

Arrow reads whole row groups: 4 MB for the 115 kB of one image. The pages of a row group are found by their headers,
structs of Thrift's compact protocol; see https://parquet.apache.org/docs/file-format/data-pages/ and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. This module knows only the pages that
`partition_writer` writes. `find_pages` returns no pages for any other file, and its caller reads the row group.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.storage.thrift import read_field, read_signed, read_varint

HEADER_BYTES = 64  # of a page without statistics at most; it has some 20
DATA_PAGE, PLAIN, RLE = 0, 0, 3  # of the enumerations PageType and Encoding
CODECS = {"ZSTD": "zstd", "UNCOMPRESSED": None}  # that `partition_writer` uses, and their names in Arrow
# A header as Arrow writes it: the sizes of the page, plain and compressed, and the number of its values.
_VARINT = rb"([\x80-\xff]{0,4}[\x00-\x7f])"
_COMMON = re.compile(
    rb"\x15\x00\x15%b\x15%b\x2c\x15%b\x15\x00\x15\x06\x15\x06\x1c\x00\x00\x00" % ((_VARINT,) * 3), re.DOTALL
)
_ONE = (2).to_bytes(4, "little") + b"\x02\x01"  # the levels of a page of one value that is not NULL


@dataclass(frozen=True, slots=True)
class Page:
    """A data page: rows ``first`` to ``first + n_rows`` of its row group; of a column of lists, their values."""

    first: int
    n_rows: int
    offset: int  # of its data in the file
    n_bytes: int
    n_plain: int  # bytes after decompression
    codec: str | None


def find_pages(file: pa.NativeFile, column: Any) -> tuple[Page, ...]:
    """Return the pages of a flat, nullable column of BLOBs in one row group; none if reading them singly gains nothing.

    Args:
        file: the Parquet file.
        column: a ``pyarrow.parquet.ColumnChunkMetaData``.
    """
    pages = walk_pages(file, column, PLAIN)
    return pages if len(pages) > 1 or column.num_values == 1 else ()


def walk_pages(file: pa.NativeFile, column: Any, encoding: int) -> tuple[Page, ...]:
    """Return the pages of a column in one row group; none if one is of another kind.

    Args:
        file: the Parquet file.
        column: a ``pyarrow.parquet.ColumnChunkMetaData``.
        encoding: of the values, as in Parquet's enumeration.
    """
    if column.has_dictionary_page or column.compression not in CODECS:
        return ()
    codec = CODECS[column.compression]
    pages, first, offset = list[Page](), 0, column.data_page_offset
    end = offset + column.total_compressed_size
    while first < column.num_values:
        found = read_header(file.read_at(min(HEADER_BYTES, max(0, end - offset)), offset), encoding)
        if found is None or found[1] > column.total_uncompressed_size:
            return ()
        n_rows, n_plain, n_bytes, n_header = found
        offset += n_header
        pages.append(Page(first, n_rows, offset, n_bytes, n_plain, codec))
        first, offset = first + n_rows, offset + n_bytes
    return tuple(pages) if (first, offset) == (column.num_values, end) else ()


def read_blob(file: pa.NativeFile, page: Page, row: int) -> pa.Buffer | None:
    """Return the BLOB in one row of a row group; None if it is NULL.

    Raises:
        pyarrow.ArrowException, OSError: the page can't be decompressed, or can't be read.
        ValueError, IndexError: the page is damaged.
    """
    data = read_page(file, page)
    n_levels = int.from_bytes(data[:4], "little")
    valid = read_levels(bytes(data[4 : 4 + n_levels]), page.n_rows)
    at = 4 + n_levels
    for is_valid in valid[: row - page.first]:
        at += 4 + int.from_bytes(data[at : at + 4], "little") if is_valid else 0
    if not valid[row - page.first]:
        return None
    size = int.from_bytes(data[at : at + 4], "little")
    if at + 4 + size > data.size:
        raise ValueError(f"a BLOB of {size} bytes in a page of {data.size}")
    return data.slice(at + 4, size)


def read_page(file: pa.NativeFile, page: Page) -> pa.Buffer:
    """Return the data of a page, decompressed.

    Raises:
        pyarrow.ArrowException, OSError: it can't be decompressed, or can't be read.
        ValueError: it has another size than it says.
    """
    data = pa.py_buffer(file.read_at(page.n_bytes, page.offset))
    if page.codec is not None:
        data = pa.Codec(page.codec).decompress(data, page.n_plain)
    if data.size != page.n_plain:
        raise ValueError(f"a page of {page.n_plain} bytes has {data.size}")
    return data


def copy_blob(file: io.FileIO, page: Page, target: NDArray[np.uint8]) -> None:
    """Read the BLOB of an uncompressed page of one row straight into an array of its size.

    Raises:
        OSError: the page can't be read.
        ValueError, IndexError: the page is damaged, or its BLOB has another size.
    """
    head = bytearray(max(0, page.n_plain - len(target)))
    if os.preadv(file.fileno(), [head, target.data], page.offset) != page.n_plain:
        raise ValueError("the file ends in the middle of a page, or its BLOB has another size")
    check_head(head, len(target))


def check_head(head: bytearray, size: int) -> None:
    """Check what a page of one row has before its BLOB.

    Raises:
        ValueError, IndexError: it is damaged, or the BLOB has another size.
    """
    if head == _ONE + size.to_bytes(4, "little"):
        return
    n_levels = int.from_bytes(head[:4], "little")
    found = int.from_bytes(head[-4:], "little") if read_levels(bytes(head[4:-4]), 1) == [True] else 0
    if len(head) != 8 + n_levels or found != size:
        raise ValueError(f"a page holds no BLOB of {size} bytes")


def read_header(data: bytes | bytearray, encoding: int) -> tuple[int, int, int, int] | None:
    """Return the values of a page, its bytes plain and compressed, and those of its header; None for another kind."""
    if encoding == PLAIN and (common := _COMMON.match(data)):
        n_plain, n_bytes, n_rows = (read_signed(varint, 0)[0] for varint in common.groups())
        return (n_rows, n_plain, n_bytes, common.end()) if min(n_rows, n_plain, n_bytes) > 0 else None
    return _read_any_header(bytes(data), encoding)


def _read_any_header(data: bytes, encoding: int) -> tuple[int, int, int, int] | None:
    try:
        header, n_header = _struct(data, 0)
        page = header[5]
        if header[1] != DATA_PAGE or page[2] != encoding or page[3] != RLE or min(page[1], header[2], header[3]) <= 0:
            return None
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return page[1], header[2], header[3], n_header


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the integers and structs of a Thrift struct by their numbers, and where it ends.

    Raises:
        IndexError: it goes on after the data.
        ValueError: it has a field of another type.
    """
    fields, number = dict[int, Any](), 0
    while data[at] != 0:
        number, kind, at = read_field(data, at, number)
        match kind:
            case 4 | 5 | 6:  # 16, 32 and 64 bits
                fields[number], at = read_signed(data, at)
            case 12:
                fields[number], at = _struct(data, at)
            case _:
                raise ValueError(f"a field of type {kind}")
    return fields, at + 1


def read_levels(data: bytes, n: int) -> list[bool]:
    """Return which of ``n`` values are not NULL, from runs of equal bits and of packed ones (Parquet's RLE)."""
    valid, at = list[bool](), 0
    while len(valid) < n:
        head, at = read_varint(data, at)
        if head & 1:
            packed = data[at : at + (head >> 1)]
            valid += [bool(byte >> bit & 1) for byte in packed for bit in range(8)]
            at += head >> 1
        else:
            valid += [bool(data[at])] * min(head >> 1, n - len(valid))
            at += 1
    return valid
