"""A file that is hashed while it is read from front to back, so that its digest costs no second reading.

What is hashed can be copied at the same time: it is each byte of the file, once and in order.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import IO

import pyarrow as pa

from featurestore.storage.partitions import Place, open_at
from featurestore.storage.positioned_file import PositionedFile

NEAR = 1 << 16  # bytes that a reader may skip; they are read for the digest alone
PIECE = 1 << 20
AHEAD = 8 << 20  # bytes to ask for at once of a file that is elsewhere


class _Hashed(io.RawIOBase):
    """The hashing, before the class that reads."""

    def _begin(self, copy: IO[bytes] | None) -> None:
        self._sha, self._hashed, self._copy = hashlib.sha256(), 0, copy

    def read(self, size: int | None = -1) -> bytes:
        """Return at most ``size`` bytes from the current position."""
        at = self.tell()
        if 0 < at - self._hashed <= NEAR:
            self.seek(self._hashed)
            self._hash(super().read(at - self._hashed) or b"")
        data = super().read(-1 if size is None else size) or b""
        if at <= self._hashed < at + len(data):
            self._hash(memoryview(data)[self._hashed - at :])
        return data

    def hexdigest(self) -> str:
        """Return the SHA-256 of the whole file, in hex; afterwards the copy has all of its bytes."""
        self.seek(self._hashed)
        while data := super().read(PIECE):
            self._hash(data)
        return self._sha.hexdigest()

    def _hash(self, data: bytes | memoryview) -> None:
        self._sha.update(data)
        if self._copy is not None:
            self._copy.write(data)
        self._hashed += len(data)


class HashedFile(_Hashed, io.FileIO):
    """A local file whose bytes are hashed when they are read in order; `hexdigest` reads the rest."""

    def __init__(self, path: Path, copy: IO[bytes] | None = None) -> None:
        """Open the file."""
        super().__init__(path, "rb")
        self._begin(copy)


class _Ahead(PositionedFile):
    """A file of Arrow, of which many bytes are asked for at once."""

    def __init__(self, file: pa.NativeFile) -> None:
        super().__init__(file.size())
        self._file = file
        self._start, self._held = 0, b""

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, fewer only at the end of the file."""
        size = max(0, self.size - self._at) if size < 0 else min(size, max(0, self.size - self._at))
        if not self._start <= self._at <= self._at + size <= self._start + len(self._held):
            wanted = min(max(size, AHEAD), self.size - self._at)
            self._start, self._held = self._at, self._file.read_at(wanted, self._at)
        begin = self._at - self._start
        data = self._held[begin : begin + size]
        self._at += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


class HashedRemoteFile(_Hashed, _Ahead):
    """A file elsewhere whose bytes are hashed when they are read in order; `hexdigest` reads the rest."""

    def __init__(self, place: Place, copy: IO[bytes] | None = None) -> None:
        """Open the file."""
        super().__init__(open_at(place))
        self._begin(copy)


def open_hashed(place: Place, copy: IO[bytes] | None = None) -> HashedFile | HashedRemoteFile:
    """Open the file at a place, to be hashed while it is read, and copied to an open file."""
    return HashedFile(place, copy) if isinstance(place, Path) else HashedRemoteFile(place, copy)
