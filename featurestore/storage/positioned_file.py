"""A file that is read by ranges, and keeps the position that Python's file interface asks for."""

from __future__ import annotations

import io


class PositionedFile(io.RawIOBase):
    """A readable, seekable file of a known size. A subclass reads from ``_at``, and moves it."""

    def __init__(self, size: int) -> None:
        """Begin at the start of ``size`` bytes."""
        self.size, self._at = size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, and return it."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at
