"""Reading one image file: its pixels, or a status and a message.

A bad file never raises an exception; a failing disk or network does.
"""

from __future__ import annotations

import errno
import hashlib
import stat
from pathlib import Path
from typing import Literal

from featurestore.images import decoder
from featurestore.images.decoding import ImageFile
from featurestore.images.locate import why_missing
from featurestore.rows import Status
from featurestore.system import lacking

# A file may have 8 bytes for each allowed pixel (16-bit RGBA), and this much for metadata, previews and more pages.
BYTES_PER_PIXEL = 8
EXTRA_BYTES = 64 * 2**20

# Errors of the file itself: a second attempt fails in the same way. All other errors are of the machine.
OWN = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL})


class ReadFailed(Exception):
    """The disk or the network failed while a file was read; the message is the operating system's."""


def read_image(path: str, *, max_pixels: int, truncated: Literal["refuse", "keep"]) -> ImageFile:
    """Read an image as ``cv2.imread(path)`` does, reading the file once.

    Args:
        path: The file.
        max_pixels: Width x height above which a picture is ``too_large`` and not decoded.
        truncated: What to do with a file that OpenCV decodes although part of the picture is lost: ``refuse`` gives
            the status ``truncated`` if the file ends early, and ``damaged`` if the decoder found damage inside;
            ``keep`` gives ``ok`` with a message.

    Returns:
        The picture, or a status and a message; a bad file never raises.

    Raises:
        ReadFailed: the disk or the network failed.
        MemoryError, OSError: memory or open files ran out, see `system.lacking`.
        ValueError: ``max_pixels`` or ``truncated`` is not one of the values above.
    """
    if max_pixels < 1 or truncated not in ("refuse", "keep"):
        raise ValueError(f"max_pixels={max_pixels!r}, truncated={truncated!r}: not a limit and a policy")
    limit = BYTES_PER_PIXEL * max_pixels + EXTRA_BYTES
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait for its writer
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
            return ImageFile(Status.UNREADABLE, f"{kind}, not a file")
        with Path(path).open("rb") as stream:
            if found.st_size > limit:
                return _too_many_bytes(path, found.st_size, limit)
            data = stream.read(found.st_size + 1)  # one byte more, for special files whose size is 0
    except (FileNotFoundError, NotADirectoryError):
        return ImageFile(Status.MISSING, why_missing(Path(path)))
    except OSError as error:
        if error.errno in OWN:
            return ImageFile(Status.UNREADABLE, f"the file can't be read ({error.strerror})")
        if lacking(error):
            raise
        raise ReadFailed(error.strerror) from error
    except ValueError:  # NUL, or a character that the file system can't spell
        return ImageFile(Status.MISSING, "the file name holds a character that no file name can hold")
    read = ImageFile(Status.OK, source_bytes=len(data), source_hash=hashlib.sha256(data).hexdigest())
    return decoder.judge(read, data, max_pixels, keep=truncated == "keep")


def n_pixels(path: str) -> int:
    """Return the pixels of a picture by its header; 0 if it has none, or can't be read."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return 0
        width, height = decoder.size_of(path) or (0, 0)
    except (OSError, ValueError):  # reading the picture will say why
        return 0
    return width * height


def _too_many_bytes(path: str, size: int, limit: int) -> ImageFile:
    width, height = decoder.size_of(path) or (None, None)
    message = f"{size / 1e6:.0f} MB, over the {limit / 1e6:.0f} MB that a file may have under the limit on pixels"
    return ImageFile(Status.TOO_LARGE, message, width=width, height=height, source_bytes=size)
