"""Reading one image file: its pixels, or a status and a message.

A bad file never raises an exception; a failing disk or network does.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Literal

from featurestore.images import decoder
from featurestore.images.decoding import ImageFile
from featurestore.images.image_container import Member
from featurestore.images.run_images import ImagePath
from featurestore.images.sources.base import Damaged, Missing, ReadFailed, TooLarge
from featurestore.images.sources.folder import read_file
from featurestore.rows import Status

# A file may have 8 bytes for each allowed pixel (16-bit RGBA), and this much for metadata, previews and more pages.
BYTES_PER_PIXEL = 8
EXTRA_BYTES = 64 * 2**20


def read_image(path: ImagePath, *, max_pixels: int, truncated: Literal["refuse", "keep"]) -> ImageFile:
    """Read an image as ``cv2.imread(path)`` does, reading the file once.

    Args:
        path: The file, or the image in a container.
        max_pixels: Width x height above which a picture is ``too_large`` and not decoded.
        truncated: What to do with a file that OpenCV decodes although part of the picture is lost: ``refuse`` gives
            the status ``truncated`` if the file ends early, and ``damaged`` if the decoder found damage inside;
            ``keep`` gives ``ok`` with a message.

    Returns:
        The picture, or a status and a message; a bad file never raises.

    Raises:
        ReadFailed: the disk or the network failed.
        ImagesGone: the container is gone, or another one than when the run began.
        MemoryError, OSError: memory or open files ran out, see `system.lacking`.
        ValueError: ``max_pixels`` or ``truncated`` is not one of the values above.
    """
    if max_pixels < 1 or truncated not in ("refuse", "keep"):
        raise ValueError(f"max_pixels={max_pixels!r}, truncated={truncated!r}: not a limit and a policy")
    limit = _limit(max_pixels)
    try:
        version = _version(path)
        data = path.read(limit) if isinstance(path, Member) else read_file(path, limit)
    except Missing as error:
        return ImageFile(Status.MISSING, str(error))
    except Damaged as error:
        return ImageFile(error.status, str(error))
    except TooLarge as error:
        return _too_many_bytes(path if isinstance(path, str) else error.head, error.n_bytes, limit)
    digest = hashlib.sha256(data).hexdigest()
    read = ImageFile(Status.OK, source_bytes=len(data), source_hash=digest, source_version=version)
    return decoder.judge(read, data, max_pixels, keep=truncated == "keep")


def _version(path: ImagePath) -> int | None:
    """Return the version of an image of a run; what an object store answers has the bytes, too, see `RunObject`."""
    state = path.state() if isinstance(path, Member) and path.identity is not None else None
    return None if state is None else state[1] or None


def n_pixels(path: ImagePath, *, max_pixels: int = 2**26) -> int:
    """Return the pixels of a picture by its header; 0 if it has none, or can't be read.

    ``max_pixels`` is that of `read_image`.
    """
    try:
        if isinstance(path, Member):
            width, height = decoder.size_of(_start(path, _limit(max_pixels))) or (0, 0)
        elif stat.S_ISREG(Path(path).stat().st_mode):
            width, height = decoder.size_of(path) or (0, 0)
        else:
            return 0
    except (OSError, ValueError, Missing, Damaged, ReadFailed):  # reading the picture will say why
        return 0
    return width * height


def _start(member: Member, limit: int) -> bytes:
    """Return an image's bytes, or as many as there are to measure one that is too large."""
    try:
        return member.peek(limit)
    except TooLarge as error:
        return error.head


def _limit(max_pixels: int) -> int:
    return BYTES_PER_PIXEL * max_pixels + EXTRA_BYTES


def _too_many_bytes(path: str | bytes, size: int, limit: int) -> ImageFile:
    width, height = decoder.size_of(path) or (None, None)
    message = f"{size / 1e6:.0f} MB, over the {limit / 1e6:.0f} MB that a file may have under the limit on pixels"
    return ImageFile(Status.TOO_LARGE, message, width=width, height=height, source_bytes=size)
