"""Sources of images: what each of them offers, and the errors of a single image.

A source holds images by name. It knows nothing of pictures: the bytes go to the decoder.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from featurestore.rows import Status

HEAD = 2**20  # bytes of a file that is too large, of which the picture is measured


class Missing(Exception):
    """There is no image of this name; the message says why."""


class Damaged(Exception):
    """The bytes of an image can't be read, and a second attempt would fail in the same way; the message says why."""

    def __init__(self, message: str, status: Status = Status.DAMAGED) -> None:
        """Take the message, and the status of the image's row."""
        super().__init__(message)
        self.status = status


class TooLarge(Exception):
    """An image has more bytes than the limit; it has not been read."""

    def __init__(self, n_bytes: int, head: bytes = b"") -> None:
        """Take its size, and its first bytes where the source has them."""
        super().__init__(n_bytes, head)
        self.n_bytes, self.head = n_bytes, head


class ReadFailed(Exception):
    """The disk or the network failed while an image was read; the message is the operating system's."""


class Entry(NamedTuple):
    """An image in a source.

    Attributes:
        name: its name, the ``filename`` of its row.
        n_bytes: None where only reading tells.
        version: a number that changes when the image does, as far as the source knows: nanoseconds or a CRC-32.
    """

    name: str
    n_bytes: int | None = None
    version: int | None = None


def no_file(mode: int) -> str:
    """Return what a path is that is no regular file."""
    return f"{'a folder' if stat.S_ISDIR(mode) else 'a pipe, a socket or a device'}, not a file"


class Source(ABC):
    """A source of images."""

    where: str  # its address, by which any process can open it
    keeps_versions: ClassVar[bool] = True  # the versions of its images are the same in a copy of it

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield every image once, in the order in which reading is fastest; sizes and versions may be left out.

        Raises:
            DatasetError: they can't be listed.
        """

    @abstractmethod
    def stat(self, name: str) -> Entry:
        """Return what is known of an image without reading it.

        Raises:
            Missing: there is none of this name.
            Damaged: there is, but it is no file.
            UnreadableFile: the system does not say.
        """

    def listed(self) -> Source:
        """Return a source to ask for the state of most images; one list answers where each would be a request."""
        return self

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of an image.

        Raises:
            Missing: there is none of this name.
            Damaged: its bytes can't be read.
            TooLarge: it has more than ``limit`` bytes.
            ReadFailed: the disk or the network failed.
            MemoryError, OSError: memory or open files ran out, see `system.lacking`.
        """
