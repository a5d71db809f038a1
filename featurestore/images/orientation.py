"""The EXIF orientation of an image file, from its header: that by which OpenCV turns the picture.

OpenCV turns JPEG, PNG, WebP and TIFF. Nothing is decoded, and no content raises an exception.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO

UPRIGHT = 1
ORIENTATION = 0x0112  # the tag
EXIF = b"Exif\0\0"
JPEG, PNG, RIFF, WEBP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # the order of bytes
MOST_ENTRIES = 1000  # of a TIFF directory
MOST_MARKERS = 10_000  # of a JPEG, fill bytes included
LARGEST = 1 << 20  # bytes of EXIF data in a PNG or WebP


def orientation_of(stream: IO[bytes]) -> int:
    """Return the EXIF orientation of a JPEG, PNG, WebP or TIFF, 1 to 8; 1 where it says nothing.

    Raises:
        OSError: the file can't be read.
    """
    try:
        found = _orientation(stream, stream.read(12))
    except struct.error:  # the file ends there
        found = UPRIGHT
    return found if 1 <= found <= 8 else UPRIGHT


def _orientation(stream: IO[bytes], start: bytes) -> int:
    if start[:2] == JPEG:
        return _in_blob(next(_jpeg_exif(stream), b""))
    if start[:4] in TIFF:
        return _in_tiff(stream, 0)
    if start[:8] == PNG:
        return _in_blob(_chunk(stream, 8, b"eXIf", order=">", after=4))
    if start[:4] == RIFF and start[8:] == WEBP:
        return _in_blob(_chunk(stream, 12, b"EXIF", order="<", after=0).removeprefix(EXIF))
    return UPRIGHT


def _jpeg_exif(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the EXIF data in the segments before the picture."""
    at = 2
    for _ in range(MOST_MARKERS):
        marker, code, length = struct.unpack(">BBH", _read(stream, at, 4))
        if marker != 0xFF or code in (0xD9, 0xDA):
            return
        if code == 0xFF:  # a fill byte
            at += 1
            continue
        if code == 0xE1 and length >= 2:
            content = _read(stream, at + 4, length - 2)
            if content.startswith(EXIF):
                yield content.removeprefix(EXIF)
        at += 2 + max(length, 2)


def _chunk(stream: IO[bytes], at: int, wanted: bytes, *, order: str, after: int) -> bytes:
    """Return the content of the first chunk ``wanted`` of a PNG (big-endian) or a WebP; empty if there is none."""
    while True:
        first, second = struct.unpack("4s4s", _read(stream, at, 8))
        name, size = (second, first) if order == ">" else (first, second)
        (length,) = struct.unpack(f"{order}I", size)
        if name == wanted:
            return _read(stream, at + 8, min(length, LARGEST))
        at += 8 + length + (after or length % 2)  # a checksum after it, or a byte that makes its length even


def _in_blob(data: bytes) -> int:
    return _in_tiff(io.BytesIO(data), 0) if data[:4] in TIFF else UPRIGHT


def _in_tiff(stream: IO[bytes], at: int) -> int:
    order = TIFF[_read(stream, at, 4)]
    (directory,) = struct.unpack(f"{order}I", _read(stream, at + 4, 4))
    (n_entries,) = struct.unpack(f"{order}H", _read(stream, directory, 2))
    for i in range(min(n_entries, MOST_ENTRIES)):
        tag, _, _, value = struct.unpack(f"{order}HHIH", _read(stream, directory + 2 + 12 * i, 10))
        if tag == ORIENTATION:
            return int(value)
    return UPRIGHT


def _read(stream: IO[bytes], at: int, count: int) -> bytes:
    """Return bytes from a place of the file; fewer at its end, which `struct` refuses."""
    stream.seek(at)
    return stream.read(count)
