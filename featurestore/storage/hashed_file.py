"""A file that is hashed while it is read from front to back, so that its digest costs no second reading."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

NEAR = 1 << 16  # bytes that a reader may skip; they are read for the digest alone
PIECE = 1 << 20


class HashedFile(io.FileIO):
    """A file whose bytes are hashed when they are read in order; `hexdigest` reads the rest."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        super().__init__(path, "rb")
        self._sha, self._hashed = hashlib.sha256(), 0

    def read(self, size: int | None = -1) -> bytes:
        """Return at most ``size`` bytes from the current position."""
        at = self.tell()
        if 0 < at - self._hashed <= NEAR:
            self.seek(self._hashed)
            self._hash(super().read(at - self._hashed) or b"")
        data = super().read(size) or b""
        if at <= self._hashed < at + len(data):
            self._hash(memoryview(data)[self._hashed - at :])
        return data

    def hexdigest(self) -> str:
        """Return the SHA-256 of the whole file, in hex."""
        self.seek(self._hashed)
        while data := super().read(PIECE):
            self._hash(data)
        return self._sha.hexdigest()

    def _hash(self, data: bytes | memoryview) -> None:
        self._sha.update(data)
        self._hashed += len(data)
