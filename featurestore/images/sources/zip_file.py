"""Zip files as a source. Their directory has the size and the CRC-32 of each member, before anything is read."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from featurestore.errors import DatasetError
from featurestore.images.sources.base import HEAD, Damaged, Entry, Missing, ReadFailed, TooLarge
from featurestore.images.sources.container import Archive, FileState, is_image, plain
from featurestore.rows import Status
from featurestore.system import lacking, reason_unreadable

ENCRYPTED = 0x1
WHOLE = (0, 0xFFFF)  # numbers of the first part of a zip file; the second says that zip64 has it
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # `zipfile` inflates the others without a limit on memory
# What `zipfile` and `zlib` raise for damaged data.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, LookupError, NotImplementedError, struct.error, OSError)


class ZipArchive(Archive):
    """An open zip file; of members with the same name the last counts. Links are no images."""

    def __init__(self, path: Path, state: FileState) -> None:
        """Open the file and read its directory."""
        super().__init__(path, state)
        try:
            self._zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            if reason_unreadable(error) is not None or isinstance(error, FileNotFoundError):
                raise
            raise DatasetError(
                f"{path} is not a whole zip file ({_words(error)}); if it was downloaded, the "
                "download may have ended early: get it again"
            ) from error
        if any(member.volume not in WHOLE for member in self._zip.infolist()):
            self._zip.close()
            raise DatasetError(
                f"{path} is the last part of a zip file in several parts, of which no image can be read; make one file "
                f"of them with: zip -s 0 {path.name} --out whole.zip"
            )
        named = ((plain(member.filename), member) for member in self._zip.infolist() if not member.is_dir())
        members = {name: member for name, member in named if name is not None}
        self._links = {name for name, member in members.items() if stat.S_ISLNK(member.external_attr >> 16)}
        self._members = {name: member for name, member in members.items() if name not in self._links}

    def entries(self) -> Iterator[Entry]:
        """Yield the image files, in the order of their bytes."""
        for name, member in sorted(self._members.items(), key=lambda item: item[1].header_offset):
            if is_image(name):
                yield Entry(name, member.file_size, member.CRC)

    def stat(self, name: str) -> Entry:
        """Return size and CRC-32."""
        member = self._member(name)
        return Entry(name, member.file_size, member.CRC)

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a member, checked by its CRC-32; no more than its directory says are inflated."""
        member = self._member(name)
        if member.flag_bits & ENCRYPTED:
            raise Damaged("the member is encrypted; decrypt the zip file", Status.UNREADABLE)
        if member.compress_type not in BOUNDED:
            method = f"the member is compressed by method {member.compress_type} of zip"
            raise Damaged(f"{method}; make the file again with deflate", Status.UNREADABLE)
        too_large = member.file_size > limit
        wanted = HEAD if too_large else member.file_size
        try:
            with self._zip.open(member) as stream:
                data = stream.read(wanted)
                complete = too_large or (len(data) == wanted and not stream.read(1))  # at the end it compares the CRC
        except DAMAGE as error:
            if too_large:
                raise TooLarge(member.file_size) from error
            if lacking(error):
                raise
            if (reason := reason_unreadable(error)) is not None:
                raise ReadFailed(reason) from error
            raise Damaged(f"the zip file is damaged at this member ({_words(error)})") from error
        if too_large:
            raise TooLarge(member.file_size, data)
        if not complete:
            raise Damaged(f"the zip file is damaged at this member ({len(data)} bytes instead of {wanted})")
        return data

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _member(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._members[name]
        except KeyError:
            link = ", but a link; make the zip again without --symlinks" if name in self._links else ""
            raise Missing(f"{self.path.name} has no member of this name{link}") from None


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
