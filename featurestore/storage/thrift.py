"""Thrift's compact protocol, in which Parquet writes its footers and page headers: the part that readers share.

See https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned integer at a byte, and where it ends.

    Raises:
        IndexError: it goes on after the data.
    """
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return value, at + 1
        at, shift = at + 1, shift + 7


def read_field(data: bytes, at: int, last: int) -> tuple[int, int, int]:
    """Return the number of a struct's field, its type, and where its value begins.

    Args:
        data: the struct's bytes, of which that at ``at`` is not 0: that would be its end.
        at: where the field begins.
        last: the number of the field before, 0 for the first one.

    Raises:
        IndexError: it goes on after the data.
    """
    head, at = data[at], at + 1
    if head >> 4:
        return last + (head >> 4), head & 15, at
    number, at = read_signed(data, at)
    return number, head & 15, at


def read_signed(data: bytes, at: int) -> tuple[int, int]:
    """Return the signed integer at a byte, and where it ends.

    Raises:
        IndexError: it goes on after the data.
    """
    value, at = read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at
