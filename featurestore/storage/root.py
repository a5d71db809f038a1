"""The store's root: where bytes live, and how a file becomes visible all at once or not at all.

Every file is written under a temporary name beside its target, flushed to disk, and renamed. A crash leaves at most a
temporary file, which ``sweep`` removes. This is the only module that knows that the root is a local folder.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from featurestore.errors import UnreadableFile
from featurestore.system import (
    files_below,
    flush,
    make_folder,
    may_write,
    not_writable,
    readable,
    room_on_disk,
    temporary_name,
    writing,
)

LOG = logging.getLogger("featurestore.storage")
CONFIG = "featurestore.toml"
CATALOG = "catalog.duckdb"
FOLDERS = ("dataset", "partitions", "models")
BLOCKS = "blocks"  # what is finished of partitions to come; only there while there is any
IN_PLACE = (CATALOG, f"{CATALOG}.wal", "catalog.lock", "run.lock")  # files that are changed, not replaced

_TEMPORARY = re.compile(r"^\.tmp-[0-9a-f]{12}-")


class Root:
    """A store's folder. Names are relative to it, with ``/``."""

    def __init__(self, path: Path) -> None:
        """Take the folder at ``path``; it need not exist yet."""
        self.path = path
        self.guard: Callable[[], None] | None = None  # of the run lock, while this process has it

    def __getstate__(self) -> dict[str, Any]:
        """Leave the guard out: the lock belongs to this process, and workers only write what it publishes."""
        return {"path": self.path, "guard": None}

    def check_guard(self) -> None:
        """Make sure that a process that has taken the run lock still has it. Comes before whatever changes the store.

        Raises:
            StoreBusy: another process has taken over.
        """
        if self.guard is not None:
            self.guard()

    def local(self, name: str) -> Path:
        """Return the path of the file called ``name``."""
        return self.path / name

    @property
    def writable(self) -> bool:
        """Whether this process may change the store."""
        return may_write(self.path)

    def refuse_unwritable(self) -> None:
        """Make sure that this user may change all that a verb may change.

        Raises:
            NotWritable: a folder, the catalog or a lock belongs to somebody else.
        """
        folders = (Path(found[0]) for name in (*FOLDERS, BLOCKS) for found in os.walk(self.local(name)))
        for path in (self.path, *folders, *map(self.local, IN_PLACE)):
            if path.exists() and not may_write(path):
                raise not_writable(path)

    def free_bytes(self) -> int:
        """Return the bytes that are free on the store's disk."""
        return shutil.disk_usage(self.path).free

    @contextmanager
    def publishing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path beside ``name``; on success it becomes ``name`` in one step.

        Raises:
            NotEnoughSpace: the disk is full, a quota or a file-size limit was met. Nothing is left behind.
            NotWritable: the folder belongs to somebody else.
        """
        with self.temporary(name) as temporary:
            yield temporary
            self.publish(temporary, name)

    @contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """Yield a temporary path beside ``name``; whatever is still there at the end is removed."""
        with self.draft(name) as temporary:
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """Yield a temporary path beside ``name``, for a file that another process publishes; a failure removes it.

        Raises:
            NotEnoughSpace: the disk is full, a quota or a file-size limit was met.
        """
        target = self.local(name)
        temporary = target.with_name(temporary_name(target.name))
        try:
            with room_on_disk(name):
                make_folder(target.parent)
                yield temporary
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def publish(self, temporary: Path, name: str) -> None:
        """Flush ``temporary`` to disk and give it its final name."""
        target = self.local(name)
        flush(temporary)
        self.check_guard()
        with writing(target):
            temporary.replace(target)
        flush(target.parent)
        LOG.debug("published %s", name)

    def remove(self, name: str) -> None:
        """Delete a file; one that is gone already is fine."""
        self.check_guard()
        with writing(self.local(name)):
            self.local(name).unlink(missing_ok=True)
        LOG.debug("removed %s", name)

    def files(self, folder: str, suffix: str) -> list[str]:
        """Return the names of the committed files below ``folder`` that end in ``suffix``, sorted.

        Raises:
            UnreadableFile: a folder can't be listed.
        """
        names, failed = self.listing(folder, suffix)
        if failed:
            raise failed[0]
        return names

    def listing(self, folder: str, suffix: str) -> tuple[list[str], list[UnreadableFile]]:
        """Return what `files` does, and an error for each folder that can't be listed."""
        found, failed = files_below(self.local(folder))
        wanted = (path for path in found if path.name.endswith(suffix) and not _TEMPORARY.match(path.name))
        return sorted(path.relative_to(self.path).as_posix() for path in wanted), failed

    def remove_folder(self, folder: str) -> None:
        """Delete the files of a folder, and then it and those above it, as far as they are empty."""
        path = self.local(folder)
        for file in files_below(path)[0]:
            if file.parent == path:
                self.remove(file.relative_to(self.path).as_posix())
        with suppress(OSError):  # one is not empty, or not there
            while path != self.path:
                path.rmdir()
                path = path.parent

    def remove_empty_folders(self) -> None:
        """Delete what is empty below the store's folders. Only for the process that holds the store's run lock."""
        for folder in FOLDERS:
            for path, below, _ in os.walk(self.local(folder), topdown=False):
                for name in below:
                    with suppress(OSError):  # it is not empty
                        Path(path, name).rmdir()

    def sweep(self) -> list[str]:
        """Delete what interrupted writers left behind. Only for the process that holds the store's run lock.

        A folder that can't be listed is passed over.
        """
        self.check_guard()
        left = [path for folder in ("", *FOLDERS, BLOCKS) for path in self._walk(folder) if _TEMPORARY.match(path.name)]
        for path in left:
            with writing(path):
                if path.is_dir() and not path.is_symlink():  # of DuckDB, for what an ingest sorts
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        if left:
            LOG.info("removed %d temporary files of processes that ended early", len(left))
        return [path.relative_to(self.path).as_posix() for path in left]

    def _walk(self, folder: str) -> Iterator[Path]:
        if folder:
            return iter(files_below(self.local(folder))[0])
        with readable(self.path):
            return iter(list(self.path.iterdir()))
