"""The store's root folder, for all readers of a store, and for the temporary files that any process may write.

Every file is written under a temporary name beside its target. A `Writer` flushes it to disk and renames it. A crash
leaves at most a temporary file. Partitions may be elsewhere (`partitions`); the other files are in the local folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePath

from featurestore.errors import UnreadableFile
from featurestore.storage.partitions import PARTITIONS, FolderPartitions, Partitions, Place, State
from featurestore.system import draft, may_write, not_writable

CONFIG = "featurestore.toml"
CATALOG = "catalog.duckdb"
FOLDERS = ("dataset", PARTITIONS, "models")
BLOCKS = "blocks"  # finished blocks of future partitions; exists only while there are any
PAIRS = "pairs"  # the pairs that were found last, which may be removed at any time
INDEX = "index"  # the file of the search index, which is made of partitions and may be removed at any time
IN_PLACE = (CATALOG, f"{CATALOG}.wal", "catalog.lock", "run.lock")  # files that are changed, not replaced


class Root:
    """A store's folder. Names are relative to it, with ``/``."""

    def __init__(self, path: Path, partitions: Partitions | None = None) -> None:
        """Take the folder at ``path``, which need not exist yet, and where its partitions are if not there."""
        self.path, self._files = path, FolderPartitions(path)
        self.partitions = partitions or self._files

    def absolute(self) -> Root:
        """Return the same root with an absolute path, for other processes."""
        return Root(self.path.absolute(), None if self.partitions.is_local else self.partitions)

    def local(self, name: str) -> Path:
        """Return the path of the file called ``name``, which is no partition."""
        return self.path / name

    def at(self, name: str) -> Place:
        """Return the place of the file called ``name``, a partition or another one."""
        return self.keeper(name).at(name)

    def keeper(self, name: str) -> Partitions:
        """Return what keeps the file or folder called ``name``."""
        return self.partitions if name == PARTITIONS or name.startswith(f"{PARTITIONS}/") else self._files

    def state(self, name: str) -> State | None:
        """Return the state of a file, None if there is none.

        Raises:
            UnreadableFile: the system does not say.
        """
        return self.keeper(name).state(name)

    def name_of(self, path: str) -> str:
        """Return the name of a file of the store; the path itself if it is none."""
        if not self.partitions.is_local and path.startswith(f"{self.partitions.where}/"):
            return path.removeprefix(f"{self.partitions.where}/")
        return PurePath(path).relative_to(self.path).as_posix() if PurePath(path).is_relative_to(self.path) else path

    @property
    def writable(self) -> bool:
        """Whether this process may change the store."""
        return may_write(self.path)

    def refuse_unwritable(self) -> None:
        """Check that this user may write everything that a verb may change.

        Raises:
            NotWritable: this user may not write a folder, the catalog or a lock.
        """
        folders = (Path(found[0]) for name in (*FOLDERS, BLOCKS, INDEX, PAIRS) for found in os.walk(self.local(name)))
        for path in (self.path, *folders, *map(self.local, IN_PLACE)):
            if path.exists() and not may_write(path):
                raise not_writable(path)

    def free_bytes(self) -> int:
        """Return the bytes that are free on the store's disk."""
        return shutil.disk_usage(self.path).free

    @contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """Yield a temporary path beside ``name``; whatever is still there at the end is removed."""
        with self.draft(name) as temporary:
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    def draft(self, name: str) -> AbstractContextManager[Path]:
        """Yield a temporary path beside ``name``, for a file that a `Writer` publishes; a failure removes it.

        Raises:
            NotEnoughSpace: the disk is full, a quota or a file-size limit was met.
        """
        return draft(self.local(name), name)

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
        return self.keeper(folder).names(folder, suffix)
