"""Files on disk: temporary names, digests, and one clear error for a full disk."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import NotEnoughSpace
from featurestore.system.access import NO_ROOM, readable

_LONGEST = 100  # bytes of a name that a temporary one repeats: file systems take 255 in all, and some take 143


# The operating system's messages for these codes, for libraries that pass on only the message.
FULL = tuple(map(os.strerror, sorted(NO_ROOM)))


def temporary_name(name: str, owner: str = "") -> str:
    """Return a unique temporary name for a file or folder ``name``; it has a digest in place of a long name.

    Args:
        name: of the finished file.
        owner: a prefix that says whose it is.
    """
    return f".tmp-{uuid.uuid4().hex[:12]}-{owner}{short_name(name)}"


def short_name(name: str) -> str:
    """Return what a temporary name repeats of a name: all of it, or a digest if it is long."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST else hashlib.sha256(encoded).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex.

    Raises:
        UnreadableFile: it can't be read.
    """
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_size(path: Path) -> int:
    """Return the bytes of a file.

    Raises:
        UnreadableFile: the system does not say.
    """
    with readable(path):
        return path.stat().st_size


def changed_ns(found: os.stat_result) -> int:
    """Return the nanoseconds of a file's last change, in 64 bits with a sign: years after 2262 become negative."""
    return (found.st_mtime_ns + 2**63) % 2**64 - 2**63


@contextmanager
def room_on_disk(what: str) -> Iterator[None]:
    """Turn "no space", "over quota" and "file too large" into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise not_enough_space(what, f"{os.strerror(error.errno or 0)}{_of_what(error)}") from error


def _of_what(error: OSError) -> str:
    """Return a remark if a file system has bytes left and takes no more files."""
    if error.errno != errno.ENOSPC or not isinstance(error.filename, str | bytes | os.PathLike):
        return ""
    try:
        found = os.statvfs(Path(os.fsdecode(error.filename)).parent)
    except OSError:
        return ""
    return " for another file (df -i shows how many it takes)" if found.f_files and not found.f_favail else ""


def not_enough_space(what: str, reason: str) -> NotEnoughSpace:
    """Return the error for ``what`` that did not fit on the disk, with the reason."""
    return NotEnoughSpace(
        f"{reason}: {what} could not be written; nothing half-written is recorded. "
        "Make room on the disk and run the same command again: what is done stays done"
    )


def flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the system's error names no file
    finally:
        os.close(descriptor)
