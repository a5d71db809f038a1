"""Tar files as a source.

A tar has no directory: each process reads the headers once, and then bytes at their offsets. It has no checksums
of content either: bytes that are damaged reach the decoder as they are.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from featurestore.errors import DatasetError
from featurestore.images.sources.base import HEAD, Damaged, Entry, Missing, ReadFailed, TooLarge
from featurestore.images.sources.container import Archive, FileState, compressed, is_image, plain
from featurestore.system import lacking

MOST_HEADER = 2**20  # bytes of a name or other extra header
TAIL = 2**20  # bytes after the end, in which another tar is looked for
EMPTY_READS = 100  # at the end of the file, before a reader that never stops is stopped
MAGIC_AT = 257  # bytes of a header before the word ustar
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
# What `tarfile` raises for headers that are damaged; the last of thousands of nested ones.
DAMAGE = (tarfile.TarError, EOFError, ValueError, LookupError, RecursionError)


class TarArchive(Archive):
    """An open tar file; of members with the same name the last counts. Links and sparse files are no images."""

    def __init__(self, path: Path, state: FileState) -> None:
        """Open the file and read its headers."""
        super().__init__(path, state)
        self._members: dict[str, tuple[int, int]] = {}  # offset and bytes of each, in the order of the file
        self._others: dict[str, str] = {}  # what members are that hold no image
        self._damage: str | None = None
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._read_headers()
        except BaseException:
            self.close()
            raise

    def entries(self) -> Iterator[Entry]:
        """Yield the image files in the order of the file."""
        if self._damage is not None:
            raise DatasetError(
                f"{self.path} is damaged: {self._damage}. Get it again; or name the images in a dataset, and those "
                "that can't be found become rows with a status"
            )
        for name, (_, size) in self._members.items():
            if is_image(name):
                yield Entry(name, size, self.state.mtime_ns)

    def stat(self, name: str) -> Entry:
        """Return the size of a member, and the time of the file."""
        return Entry(name, self._member(name)[1], self.state.mtime_ns)

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a member."""
        offset, size = self._member(name)
        if size > limit:
            raise TooLarge(size, self._bytes(offset, HEAD))
        if offset + size > self.state.n_bytes:
            raise Damaged("the tar file ends in the middle of this member")
        data = self._bytes(offset, size)
        if len(data) < size:
            raise Damaged(f"the tar file is cut off at this member ({len(data)} bytes instead of {size})")
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _bytes(self, offset: int, size: int) -> bytes:
        parts, left = list[bytes](), size
        try:
            while left and (part := os.pread(self._file, left, offset + size - left)):
                parts.append(part)
                left -= len(part)
        except OSError as error:
            if lacking(error):
                raise
            raise ReadFailed(error.strerror) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _member(self, name: str) -> tuple[int, int]:
        try:
            return self._members[name]
        except KeyError:
            if (other := self._others.get(name)) is not None:
                raise Missing(f"{self.path.name} has no member of this name, but {other}") from None
            damage = "" if self._damage is None else f"; it is damaged: {self._damage}"
            raise Missing(f"{self.path.name} has no member of this name{damage}") from None

    def _read_headers(self) -> None:
        reader = _Headers(self._file, self.state.n_bytes)
        try:
            tar = tarfile.open(fileobj=reader, mode="r:", encoding="utf-8")  # type: ignore[call-overload]  # noqa: SIM115 - it owns nothing
        except DAMAGE as error:
            if os.pread(self._file, 8, 0).startswith(COMPRESSED):
                raise compressed(self.path) from error
            raise DatasetError(f"{self.path} is not a tar file ({error}); give another to --images") from error
        at = -1
        try:
            while (member := tar.next()) is not None:
                if tar.offset <= at or member.size < 0:  # a header that leads back
                    raise tarfile.ReadError("a negative size")
                at = tar.offset
                tar.members.clear()  # of a million members, they would take a gigabyte
                self._keep(member)
        except DAMAGE:
            self._damage = self._unlisted(max(at, 0))
        else:
            self._damage = self._damage_at_end(tar.offset)

    def _keep(self, member: tarfile.TarInfo) -> None:
        name = plain(member.name)
        if name is None or member.isdir():
            return
        self._members.pop(name, None)
        self._others.pop(name, None)
        if member.issparse():
            self._others[name] = "a sparse file; make the tar again without --sparse"
        elif member.isreg():
            self._members[name] = (member.offset_data, member.size)
        elif member.issym() or member.islnk():
            self._others[name] = "a link; make the tar again with --dereference and --hard-dereference"

    def _damage_at_end(self, offset: int) -> str | None:
        """Return what is wrong where the reader found the end, for which it takes a damaged header and a cut too."""
        tail = os.pread(self._file, TAIL, offset)
        if tail[: tarfile.BLOCKSIZE].strip(b"\0"):
            return self._unlisted(offset)
        if not tail:
            return f"it ends at byte {offset:,} without the mark of its end, after {len(self._members):,} members"
        at = len(tail) - len(tail.lstrip(b"\0"))
        at -= at % tarfile.BLOCKSIZE
        if tail[at + MAGIC_AT :].startswith(b"ustar"):
            return f"another tar begins at byte {offset + at:,}, which tar --ignore-zeros unpacks"
        return None

    def _unlisted(self, offset: int) -> str:
        return f"what follows byte {offset:,} can't be listed, after {len(self._members):,} members"


class _Headers:
    """The file as `tarfile` reads its headers, with bounds on what a header can make it read."""

    def __init__(self, file: int, size: int) -> None:
        self._file, self._size, self._at, self._n_empty = file, size, 0, 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError("a header that is too large")
        data = os.pread(self._file, size, self._at)
        self._n_empty = 0 if data else self._n_empty + 1
        if self._n_empty > EMPTY_READS:
            raise EOFError("the file ends in a header")
        self._at += len(data)
        return data

    def seek(self, position: int) -> None:
        """Set the position."""
        if position < 0:
            raise tarfile.ReadError("a negative offset")
        self._at = min(position, self._size)

    def tell(self) -> int:
        """Return the position."""
        return self._at
