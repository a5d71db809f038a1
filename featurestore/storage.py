"""The store's root: where bytes live, and how a file becomes visible all at once or not at all.

Every file is written under a temporary name beside its target, flushed to disk, and renamed. A crash leaves at most a
temporary file, which ``sweep`` removes. This is the only module that knows that the root is a local folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import NotEnoughSpace

CONFIG = "featurestore.toml"
CATALOG = "catalog.duckdb"
FOLDERS = ("dataset", "partitions", "models")

_TEMPORARY = re.compile(r"^\.tmp-[0-9a-f]{12}-")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FULL = tuple(map(os.strerror, sorted(_FULL)))  # what the operating system says then, for those who hear only the words


class Root:
    """A store's folder. Names are relative to it, with ``/``."""

    def __init__(self, path: Path) -> None:
        """Take the folder at ``path``; it need not exist yet."""
        self.path = path

    def local(self, name: str) -> Path:
        """Return the path of the file called ``name``."""
        return self.path / name

    @property
    def writable(self) -> bool:
        """Whether this process may change the store."""
        return os.access(self.path, os.W_OK | os.X_OK)

    def free_bytes(self) -> int:
        """Return the bytes that are free on the store's disk."""
        return shutil.disk_usage(self.path).free

    @contextmanager
    def publishing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path beside ``name``; on success it becomes ``name`` in one step.

        Raises:
            NotEnoughSpace: the disk is full, a quota or a file-size limit was met. Nothing is left behind.
        """
        with self.temporary(name) as temporary:
            yield temporary
            self.publish(temporary, name)

    @contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """Yield a temporary path beside ``name``; whatever is still there at the end is removed."""
        target = self.local(name)
        temporary = target.with_name(f".tmp-{uuid.uuid4().hex[:12]}-{target.name}")
        try:
            with room_on_disk(name):
                target.parent.mkdir(parents=True, exist_ok=True)
                yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def publish(self, temporary: Path, name: str) -> None:
        """Flush ``temporary`` to disk and give it its final name."""
        target = self.local(name)
        flush(temporary)
        temporary.replace(target)
        flush(target.parent)

    def remove(self, name: str) -> None:
        """Delete a file; one that is gone already is fine."""
        self.local(name).unlink(missing_ok=True)

    def files(self, folder: str, suffix: str) -> list[str]:
        """Return the names of the committed files below ``folder`` that end in ``suffix``, sorted."""
        found = (path for path in self.local(folder).rglob(f"*{suffix}") if not _TEMPORARY.match(path.name))
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def remove_empty_folders(self) -> None:
        """Delete what is empty below the store's folders. Only for whoever holds the store's run lock."""
        for folder in FOLDERS:
            for path in sorted(self.local(folder).rglob("*"), reverse=True):
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()

    def sweep(self) -> list[str]:
        """Delete what interrupted writers left behind. Only for whoever holds the store's run lock."""
        left = [path for folder in ("", *FOLDERS) for path in self._walk(folder) if _TEMPORARY.match(path.name)]
        for path in left:
            path.unlink(missing_ok=True)
        return [path.relative_to(self.path).as_posix() for path in left]

    def _walk(self, folder: str) -> Iterator[Path]:
        base = self.local(folder)
        return base.rglob("*") if folder else base.iterdir()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def room_on_disk(what: str) -> Iterator[None]:
    """Turn "no space", "over quota" and "file too large" into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise not_enough_space(what, os.strerror(error.errno or 0)) from error


def not_enough_space(what: str, reason: str) -> NotEnoughSpace:
    """Return the error that says that ``what`` did not fit, for ``reason``."""
    return NotEnoughSpace(
        f"{reason}: {what} could not be written; nothing half-written is recorded. "
        "Make room on the disk and run the same command again: what is done stays done"
    )


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
