"""One image file -> its pixels, or a status and a line that says what is wrong with it.

A bad file never raises; a disk or a network that fails does.
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
from featurestore.system import lacking

# A file may hold 8 bytes per pixel that is allowed (16-bit RGBA) and this much of metadata, previews, further pages.
BYTES_PER_PIXEL = 8
EXTRA_BYTES = 64 * 2**20

# Why a file can't be read, where that is its own: a second attempt finds the same. All else is the machine's.
OWN = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL})


class ReadFailed(Exception):
    """The disk or the network failed while a file was read; the message is what the operating system said."""


def read_image(path: str, *, max_pixels: int, truncated: Literal["refuse", "keep"]) -> ImageFile:
    """Read an image as ``cv2.imread(path)`` does, reading the file once.

    Args:
        path: The file.
        max_pixels: Width x height above which a picture is ``too_large`` and not decoded.
        truncated: What to do with a file of which OpenCV makes a picture although part of it is lost: ``refuse`` gives
            the status ``truncated`` where the file ends too early, and ``damaged`` where the decoder came upon damage
            inside; ``keep`` gives ``ok`` and says so.

    Returns:
        The picture, or a status and a message; no file is so bad that it raises.

    Raises:
        ReadFailed: the file can't be read, for a reason that is not its own.
        MemoryError, OSError: memory or open files have run out, see `failure.lacking`.
        ValueError: ``max_pixels`` or ``truncated`` is not one of the values above.
    """
    if max_pixels < 1 or truncated not in ("refuse", "keep"):
        raise ValueError(f"max_pixels={max_pixels!r}, truncated={truncated!r}: not a limit and a policy")
    limit = BYTES_PER_PIXEL * max_pixels + EXTRA_BYTES
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait for its writer
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
            return ImageFile("unreadable", f"{kind}, not a file")
        with Path(path).open("rb") as stream:
            if found.st_size > limit:
                return _too_many_bytes(path, found.st_size, limit)
            data = stream.read(found.st_size + 1)  # one more, so that a file is read that claims to be empty
    except (FileNotFoundError, NotADirectoryError):
        return ImageFile("missing", why_missing(Path(path)))
    except OSError as error:
        if error.errno in OWN:
            return ImageFile("unreadable", f"the file can't be read ({error.strerror})")
        if lacking(error):
            raise
        raise ReadFailed(error.strerror) from error
    except ValueError:  # NUL, or a character that the file system can't spell
        return ImageFile("missing", "the file name holds a character that no file name can hold")
    read = ImageFile("ok", source_bytes=len(data), source_hash=hashlib.sha256(data).hexdigest())
    return decoder.judge(read, data, max_pixels, keep=truncated == "keep")


def _too_many_bytes(path: str, size: int, limit: int) -> ImageFile:
    width, height = decoder.size_of(path) or (None, None)
    message = f"{size / 1e6:.0f} MB, over the {limit / 1e6:.0f} MB that a file may have under the limit on pixels"
    return ImageFile("too_large", message, width=width, height=height, source_bytes=size)
