"""The footers of Parquet files, joined to that of one file with all of their row groups.

A footer is a struct of Thrift's compact protocol: https://parquet.apache.org/docs/file-format/metadata/ and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. It is read as a tree, without the
names of its fields. What is not changed is written as it was, so fields that a newer Arrow adds are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from featurestore.storage import read_field, read_signed, read_varint

MAGIC = b"PAR1"
# Numbers of the fields, by their structs in parquet.thrift
FILE_ROWS, FILE_ROW_GROUPS = 3, 4
GROUP_COLUMNS, GROUP_OFFSET, GROUP_ORDINAL = 1, 5, 7
COLUMN_OFFSETS, COLUMN_METADATA = (2, 4, 6), 3
METADATA_OFFSETS = (9, 10, 11, 14)  # of data, index and dictionary pages, and of the Bloom filter
MOST_ORDINALS = 1 << 15  # the ordinal of a row group has 16 bits, and may be left out


class Kind(IntEnum):
    """The types of Thrift's compact protocol that Parquet uses."""

    TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST = range(1, 10)
    STRUCT = 12


@dataclass
class Value:
    """A value in the tree: an integer, bytes, a list of values, or a struct as a dict of values by their numbers."""

    kind: Kind
    content: Any
    item: Kind = Kind.STRUCT  # of the items of a list


@dataclass
class Footer:
    """The footer of a file in progress."""

    _tree: Value | None = None
    _row_groups: list[Value] = field(default_factory=list)
    _n_rows: int = 0

    def append(self, data: Any, at: int) -> memoryview:
        """Add the row groups of a Parquet file, and return its data, which belong at byte ``at`` of the result."""
        view = memoryview(data)
        n_footer = int.from_bytes(view[-8:-4], "little")
        end = len(view) - 8 - n_footer
        tree, _ = _read(bytes(view[end:-8]), 0, Kind.STRUCT)
        for group in tree.content[FILE_ROW_GROUPS].content:
            _move(group.content, at - len(MAGIC), len(self._row_groups))
            self._row_groups.append(group)
        self._n_rows += tree.content[FILE_ROWS].content
        self._tree = self._tree or tree
        return view[len(MAGIC) : end]

    def data(self) -> bytes:
        """Return the end of the file.

        Raises:
            ValueError: no file was appended.
        """
        if self._tree is None:
            raise ValueError("a Parquet file of no tables")
        self._tree.content[FILE_ROWS].content = self._n_rows
        self._tree.content[FILE_ROW_GROUPS].content = self._row_groups
        made = bytearray()
        _write(made, self._tree)
        return bytes(made) + len(made).to_bytes(4, "little") + MAGIC


def _move(group: dict[int, Value], by: int, ordinal: int) -> None:
    _add(group, (GROUP_OFFSET,), by)
    if GROUP_ORDINAL in group and ordinal < MOST_ORDINALS:
        group[GROUP_ORDINAL].content = ordinal
    else:
        group.pop(GROUP_ORDINAL, None)
    for column in group[GROUP_COLUMNS].content:
        _add(column.content, COLUMN_OFFSETS, by)
        _add(column.content[COLUMN_METADATA].content, METADATA_OFFSETS, by)


def _add(struct: dict[int, Value], numbers: Sequence[int], by: int) -> None:
    for number in numbers:
        if number in struct and struct[number].content:  # Arrow writes 0 where it records no offset
            struct[number].content += by


def _read(data: bytes, at: int, kind: Kind) -> tuple[Value, int]:
    match kind:
        case Kind.TRUE | Kind.FALSE:  # the value of a field; it takes no byte
            return Value(kind, None), at
        case Kind.BYTE:
            return Value(kind, data[at : at + 1]), at + 1
        case Kind.I16 | Kind.I32 | Kind.I64:
            number, at = read_signed(data, at)
            return Value(kind, number), at
        case Kind.DOUBLE:
            return Value(kind, data[at : at + 8]), at + 8
        case Kind.BINARY:
            n, at = read_varint(data, at)
            return Value(kind, data[at : at + n]), at + n
        case Kind.LIST:
            return _read_list(data, at)
        case Kind.STRUCT:
            return _read_struct(data, at)


def _read_list(data: bytes, at: int) -> tuple[Value, int]:
    n, item, at = data[at] >> 4, Kind(data[at] & 15), at + 1
    if n == 15:
        n, at = read_varint(data, at)
    items = []
    for _ in range(n):
        one, at = _read(data, at, Kind.BYTE if item in (Kind.TRUE, Kind.FALSE) else item)
        items.append(one)
    return Value(Kind.LIST, items, item), at


def _read_struct(data: bytes, at: int) -> tuple[Value, int]:
    fields, number = dict[int, Value](), 0
    while data[at] != 0:
        number, kind, at = read_field(data, at, number)
        fields[number], at = _read(data, at, Kind(kind))
    return Value(Kind.STRUCT, fields), at + 1


def _write(made: bytearray, value: Value) -> None:
    match value.kind:
        case Kind.BYTE | Kind.DOUBLE:
            made += value.content
        case Kind.I16 | Kind.I32 | Kind.I64:
            _write_varint(made, value.content << 1 if value.content >= 0 else (~value.content << 1) | 1)
        case Kind.BINARY:
            _write_varint(made, len(value.content))
            made += value.content
        case Kind.LIST:
            n = len(value.content)
            made.append(min(n, 15) << 4 | value.item)
            if n >= 15:
                _write_varint(made, n)
            for one in value.content:
                _write(made, one)
        case Kind.STRUCT:
            _write_struct(made, value.content)


def _write_struct(made: bytearray, fields: dict[int, Value]) -> None:
    last = 0
    for number in sorted(fields):
        value = fields[number]
        if number - last < 16:
            made.append((number - last) << 4 | value.kind)
        else:
            made.append(value.kind)
            _write_varint(made, number << 1)
        _write(made, value)
        last = number
    made.append(0)


def _write_varint(made: bytearray, value: int) -> None:
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
