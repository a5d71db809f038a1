"""Decoding: the bytes of an image file become pixels, or a status and a message.

The pixels are those of ``cv2.imread``. This module adds what ``cv2.imread`` leaves to its caller: it notices truncated
and damaged pictures (OpenCV fills the lost part with grey), measures a picture before decoding it, and turns what the
decoders print to the C level's stderr into the message. No file content raises an exception.

During a call stderr, OpenCV's log level, Pillow's limits and the warning filters are changed for the whole process. So
only processes that do nothing else decode; see `decoder`.
"""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from featurestore.images.damage import ENDS_EARLY, keeping, picture_is_lost, without_picture
from featurestore.images.orientation import orientation_of
from featurestore.rows import Status
from featurestore.system import scratch_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Size = tuple[int, int]  # width, height

JPEG, PNG, RIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"
JPEG_END = b"\xff\xd9"
# At the end of a file libjpeg makes up end markers; the longest segment that can swallow them has 64 KiB.
JPEG_ENDS = JPEG_END * (2**15 + 16)
HDR_SIZE = re.compile(rb"-Y (\d{1,9}) \+X (\d{1,9})")
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
PARTLY_LOST = "part of the picture is lost"
NO_MEMORY = "Insufficient memory"  # OpenCV's words
MESSAGE_LENGTH = 300

# Formats that Pillow measures (JPEG and PNG are measured here). OpenCV reads no others.
PILLOW_FORMATS = ("TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM", "SUN", "AVIF")
# Exceptions of its plugins for malformed headers. They all mean that the picture has not been measured.
PILLOW_ERRORS = (
    *(OSError, ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, AttributeError),
    *(AssertionError, RuntimeError, EOFError, MemoryError, struct.error),
)
# Messages of the decoders for a file that ends early: first BMP, GIF and PNM, then JPEG 2000, TIFF, AVIF and HDR.
RAN_OUT = re.compile(
    r"Unexpected end of input stream|Stream too short|inconsistent with stream length|bytes remaining"
    r"|Seek error accessing TIFF directory|Can not read TIFF directory|IO error during reading of|Read error (at|on) s"
    r"|runcated data|RGBE read error"
)

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The result of reading one image file.

    Attributes:
        status: ``ok``, or why there are no pixels.
        message: One line: the error; with ``ok``, the decoder's warnings, usually None.
        pixels: uint8, height x width x 3, BGR, rotated as EXIF says; None unless ``ok``.
        width: In pixels; from the header if the file was not decoded; None if unknown.
        height: As ``width``.
        source_bytes: Size of the file.
        source_hash: SHA-256 of the file's bytes, in hex; None if they were not read.
        source_version: of an image in a container or an object store, see `Entry`; None if it is not known.
        orientation: EXIF's, by which the pixels were turned, 1 to 8; None without pixels.
    """

    status: Status
    message: str | None = None
    pixels: NDArray[np.uint8] | None = None
    width: int | None = None
    height: int | None = None
    source_bytes: int | None = None
    source_hash: str | None = None
    source_version: int | None = None
    orientation: int | None = None


def judge(read: ImageFile, data: bytes, max_pixels: int, *, keep: bool) -> ImageFile:
    """Complete ``read``, which has the file's size and hash, with the result of decoding its bytes."""
    if not data:
        return replace(read, status=Status.UNREADABLE, message="the file is empty (0 bytes)")
    size, cut = _measure(data)
    width, height = size or (None, None)
    read = replace(read, width=width, height=height)
    if (too_large := _over(size, max_pixels)) or (cut and not keep):
        return replace(
            read, status=Status.TOO_LARGE if too_large else Status.TRUNCATED, message=too_large or ENDS_EARLY
        )
    is_jpeg = data.startswith(JPEG)
    pixels, words = _decode(data, JPEG_ENDS if cut and is_jpeg else b"")
    if pixels is None and is_jpeg and not cut:
        # From memory, libjpeg gives up where the bytes do; from a file it makes up an end marker and goes on. With them
        # appended the picture is that of imread, and that they were needed shows that the file had ended too early.
        pixels, words = _decode(data, JPEG_ENDS)
        cut = pixels is not None
    if pixels is None:
        return _failed(read, data, words, cut=cut, keep=keep)
    height, width = pixels.shape[:2]
    if too_large := _over((width, height), max_pixels):  # the header lied, or could not be measured
        return replace(read, status=Status.TOO_LARGE, message=too_large, width=width, height=height)
    if words and is_jpeg and not picture_is_lost(words):
        words = _with_what_it_hid(words, data)
    lost = picture_is_lost(words)
    if (cut or lost) and not keep:
        if cut:
            return replace(read, status=Status.TRUNCATED, message=ENDS_EARLY)
        return replace(read, status=Status.DAMAGED, message=f"{PARTLY_LOST} ({_shortened(words)})")
    kept = keeping(Status.TRUNCATED, ENDS_EARLY) if cut else keeping(Status.DAMAGED, PARTLY_LOST) if lost else ""
    message = "; ".join(filter(None, [kept, _shortened(words)]))
    turned = orientation_of(io.BytesIO(data))
    return replace(read, message=message or None, pixels=pixels, width=width, height=height, orientation=turned)


def size_of(file: str | bytes) -> Size | None:
    """Return the size of a picture, in a file or in memory, from its header, without decoding it."""
    with io.BytesIO(file) if isinstance(file, bytes) else Path(file).open("rb") as stream:
        return _pillow_size(stream, ("JPEG", "PNG", *PILLOW_FORMATS))


def _with_what_it_hid(words: str, data: bytes) -> str:
    """Return the warnings with those that the decoder withheld: it reports only the first."""
    hidden = _decode(_bare_jpeg(data), JPEG_ENDS, smallest=True)[1]
    return f"{words}; {hidden}" if picture_is_lost(hidden) else words


def _failed(read: ImageFile, data: bytes, words: str, *, cut: bool, keep: bool) -> ImageFile:
    if NO_MEMORY in words:  # not a property of the file
        raise MemoryError("not enough memory to decode the picture")
    short_riff = data.startswith(RIFF) and int.from_bytes(data[4:8], "little") + 8 > len(data)  # WebP
    if cut or short_riff or (RAN_OUT.search(words) and not data.startswith(PNG)):
        words = _shortened(words) or ("OpenCV makes no picture of it" if keep else "")
        return replace(read, status=Status.TRUNCATED, message=without_picture(words))
    start = data[:512].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        words = "the file is a Git LFS pointer"
    elif start.startswith((b"<!doctype html", b"<html")):
        words = "the file is a web page"
    elif all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in start):
        words = "the file is text"
    message = "not an image that OpenCV can read" + (f" ({_shortened(words)})" if words else "")
    return replace(read, status=Status.UNREADABLE, message=message)


def _over(size: Size | None, max_pixels: int) -> str | None:
    if size is None or size[0] * size[1] <= max_pixels:
        return None
    megapixels = f"{_in_millions(size[0] * size[1])} megapixels"
    return f"{size[0]}x{size[1]} px = {megapixels}, over the limit of {_in_millions(max_pixels)} megapixels"


def _in_millions(n: int) -> str:
    text = f"{n / 1e6:.6g}"  # stays as it is for usual numbers: the words are a part of a payload
    if "e" not in text:
        return text
    return f"{n / 1e6:,.0f}" if n > 1e6 else f"{n / 1e6:f}"


def _measure(data: bytes) -> tuple[Size | None, bool]:
    """Return width and height from the header, and whether the file's structure shows that it ends early."""
    if data.startswith(JPEG):
        return _measure_jpeg(data)
    if data.startswith(PNG):
        return _measure_png(data)
    if data.startswith(b"#?") and (found := HDR_SIZE.search(data[:4096])):  # Pillow does not know Radiance HDR
        return (int(found[2]), int(found[1])), False
    return _pillow_size(io.BytesIO(data), PILLOW_FORMATS), False


def _jpeg_header(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment up to the first scan or the end: the marker's code, and the offsets of its content.

    As in libjpeg, bytes between segments are skipped. Thumbnails are inside of segments, with their own markers.
    """
    at = 2
    while match := JPEG_MARKER.search(data, at):
        code, at = match[0][1], match.end()
        if code in (0xD9, 0xDA):
            yield code, at, len(data)
            return
        if 0xD0 <= code <= 0xD8 or code == 0x01:
            continue  # stands alone
        end = at + max(int.from_bytes(data[at : at + 2], "big"), 2)
        yield code, at, end
        at = end


def _measure_jpeg(data: bytes) -> tuple[Size | None, bool]:
    """Return the size, and whether the end marker after the first scan is missing.

    The search starts at the end, which is quick for a whole file; garbage or more pictures (MPO) may follow.
    """
    size = None
    for code, at, _ in _jpeg_header(data):
        if code == 0xD9:
            return size, False  # an end marker but no scan: broken, not cut
        if code == 0xDA:
            return size, data.rfind(JPEG_END, at) < 0
        is_frame = 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC)
        if is_frame and size is None and len(data) >= at + 7:
            height, width = struct.unpack_from(">HH", data, at + 3)
            size = (width, height)
    return size, True


def _bare_jpeg(data: bytes) -> bytes:
    """Return the JPEG without metadata and extra bytes in its header, so that its header causes no warnings."""
    kept = [data[:2]]
    for code, at, end in _jpeg_header(data):
        if 0xC0 <= code <= 0xDF:  # frame, tables, restart interval, scans; not applications and comments
            kept.append(bytes((0xFF, code)) + data[at:end])
    return b"".join(kept)


def _measure_png(data: bytes) -> tuple[Size | None, bool]:
    """Walk the chunks: a file without IEND was cut; a file with invalid chunks is broken, not cut."""
    if not b"IHDR".startswith(data[12:16]):
        return None, False
    size: Size | None = struct.unpack_from(">II", data, 16) if len(data) >= 24 else None
    at = len(PNG)
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if not name.isalpha() or length >= 2**31:
            return size, False
        at += 12 + length
        if name == b"IEND":
            return size, at > len(data)
    return size, True


def _pillow_size(stream: IO[bytes], formats: tuple[str, ...]) -> Size | None:
    from PIL import Image

    with _ONE_AT_A_TIME, _stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # we apply our own limit
        try:
            with Image.open(stream, formats=formats) as image:  # reads the header only
                return image.size
        except PILLOW_ERRORS:
            return None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode(data: bytes, more: bytes = b"", *, smallest: bool = False) -> tuple[NDArray[np.uint8] | None, str]:
    """Return OpenCV's picture of ``data + more``, and the warnings of OpenCV and its libraries.

    ``smallest`` reads all of the data but makes a small grey picture, for callers that want only the warnings.
    """
    import cv2
    import numpy as np

    pixels, complaint = None, ""
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_8 if smallest else cv2.IMREAD_COLOR
    with _ONE_AT_A_TIME, _stderr() as log:
        try:
            if data.startswith(PNG) and data.find(b"acTL", 0, data.find(b"IDAT")) > 0:
                # Animated: from memory, OpenCV 5.0 loses the default picture and does not notice a truncated file.
                with scratch_folder() as folder:
                    copy = folder / "animated.png"
                    copy.write_bytes(data)
                    picture = cv2.imread(str(copy))
            else:
                picture = cv2.imdecode(np.frombuffer(data + more, np.uint8), flags)
            pixels = None if picture is None else np.asarray(picture, np.uint8)
        except cv2.error as error:  # OpenCV's own limits: 2^30 pixels, 2^20 a side
            complaint = str(error)
        except MemoryError:
            complaint = NO_MEMORY
        log.seek(0)
        words = log.read(2**16).decode("utf-8", errors="replace")
    return pixels, _one_line(f"{words}\n{complaint}")


@contextmanager
def _stderr() -> Iterator[IO[bytes]]:
    """Redirect the C level's stderr to a file, with OpenCV's warnings whatever its log level is."""
    from cv2.utils import logging

    if sys.stderr is not None:
        sys.stderr.flush()
    level = logging.getLogLevel()
    with _scratch() as log:
        saved = os.dup(2)
        try:
            os.dup2(log.fileno(), 2)
            logging.setLogLevel(logging.LOG_LEVEL_WARNING)
            yield log
        finally:
            logging.setLogLevel(level)
            os.dup2(saved, 2)
            os.close(saved)


def _scratch() -> IO[bytes]:
    """Return an unnamed temporary file, in memory if possible."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


def _one_line(words: str) -> str:
    """Return warnings without threads, times, paths and temporary names, which differ between runs and machines."""
    words = re.sub(r"\[ ?[A-Z]+:[^\]]*\] (?:\S+ \S+:\d+ \w+ )?", "", words)
    words = re.sub(r"\bim(?:read|decode)_\('[^']*'\): |OpenCV\([^)]*\) \S+ error: | in function '[^']+'", "", words)
    words = re.sub(r"\(-2:Unspecified error\) |(?<![\w./])/(?:[^/\s'\"]+/)*", "", words)
    lines = [" ".join("".join(c if c.isprintable() else " " for c in line).split()) for line in words.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, lines)))


def _shortened(text: str) -> str:
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 3] + "..."
