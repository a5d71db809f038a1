"""The EXIF orientation of an image file, from its header.

OpenCV turns a picture as its EXIF orientation says. Extract computes keypoints on the turned picture, and other
programs give them on the grid of pixels as they are in the file.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
ORIENTATION = 0x0112  # the tag
EXIF = b"Exif\0\0"
JPEG, PNG, RIFF, WEBP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # the order of bytes
MOST_ENTRIES = 1000  # of a TIFF directory
LARGEST = 1 << 20  # bytes of EXIF data in a PNG or WebP

# By orientation, the matrix from the turned picture to that of the file, without its shift.
_TO_FILE = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, 1), (-1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, -1), (1, 0)),
}


def orientation_of(stream: IO[bytes]) -> int:
    """Return the EXIF orientation of a JPEG, PNG, WebP or TIFF, 1 to 8; 1 where it says nothing.

    Raises:
        OSError: the file can't be read.
    """
    try:
        found = _orientation(stream, stream.read(12))
    except struct.error:  # the file ends there
        found = UPRIGHT
    return found if found in _TO_FILE else UPRIGHT


def to_file(points: NDArray[np.float64], size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Return points of the turned picture on the grid of its file.

    Args:
        points: ``(n, 2)``, x and y, where 0, 0 is the corner of the first pixel.
        size: width and height of the turned picture.
        orientation: EXIF's, 1 to 8.
    """
    return points @ _matrix(orientation).T + _shift(size, orientation)


def from_file(points: NDArray[np.float64], size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Return points on the grid of the file in its turned picture: the inverse of `to_file`, with its arguments."""
    return (points - _shift(size, orientation)) @ _matrix(orientation)


def angle_to_file(degrees: NDArray[np.float64], orientation: int) -> NDArray[np.float64]:
    """Return angles in the turned picture, in degrees from x to y, as they are in the file; 0 to 360."""
    return _turned(degrees, _matrix(orientation))


def angle_from_file(degrees: NDArray[np.float64], orientation: int) -> NDArray[np.float64]:
    """Return angles in the file as they are in the turned picture: the inverse of `angle_to_file`."""
    return _turned(degrees, _matrix(orientation).T)


def sides_swapped(orientation: int) -> bool:
    """Return whether the width of the turned picture is the height of the file's."""
    return orientation >= 5


def _matrix(orientation: int) -> NDArray[np.float64]:
    return np.array(_TO_FILE[orientation], np.float64)


def _shift(size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Return what brings the picture back where a side runs the other way: its length."""
    return np.minimum(_matrix(orientation), 0) @ np.array(size, np.float64) * -1


def _turned(degrees: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    # Exact for the common case: whole turns are added to the angle, and a mirrored one runs the other way.
    mirrored = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0] < 0
    zero = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    turned: NDArray[np.float64] = np.mod(zero - degrees if mirrored else zero + degrees, 360.0)
    return turned


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
    while True:
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
