"""The right to change a store.

Every change of a store's files, and every transaction on its catalog, needs a `Writer`. Code without one can only read,
and mypy checks that.
"""

from __future__ import annotations

import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featurestore.storage.partitions import TEMPORARY, Partitions
from featurestore.storage.root import BLOCKS, FOLDERS, INDEX, PAIRS, Root
from featurestore.system import files_below, flush, readable, writing

LOG = logging.getLogger("featurestore.storage")


class Writer(Root, ABC):
    """A store's folder for the one process that may change it. Only `exclusive` returns one.

    Each change checks that this process still holds the store. Worker processes get no writer: it is pickled as a plain
    `Root`, below which workers write temporary files that the holder of the lock publishes.
    """

    @abstractmethod
    def check(self) -> None:
        """Check that this process still holds the store. Called before each change.

        Raises:
            StoreBusy: another process has taken over, or the lock was released.
            UnreadableFile: the signature can't be read.
        """

    def __reduce__(self) -> tuple[type[Root], tuple[Path, Partitions]]:
        """Pickle it as a plain root: the lock belongs to this process."""
        return Root, (self.path, self.partitions)

    @contextmanager
    def publishing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path beside ``name``; on success it becomes ``name`` in one step.

        Raises:
            NotEnoughSpace: the disk is full, a quota or a file-size limit was met. Nothing is left behind.
            NotWritable: this user may not write the folder.
            StoreBusy: another process has taken over.
        """
        with self.temporary(name) as temporary:
            yield temporary
            self.publish(temporary, name)

    def publish(self, temporary: Path, name: str) -> None:
        """Flush ``temporary`` to disk and give it its final name; upload it, if partitions are elsewhere."""
        keeper = self.keeper(name)
        if keeper.is_local:
            flush(temporary)
        self.check()
        keeper.put(temporary, name)
        LOG.debug("published %s", name)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        self.check()
        self.keeper(name).remove(name)
        LOG.debug("removed %s", name)

    def remove_draft(self, temporary: Path) -> None:
        """Delete a temporary file, if it exists."""
        self.check()
        temporary.unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """Delete the files of a folder, then the folder and its parents as far as they are empty."""
        path = self.local(folder)
        for file in files_below(path)[0]:
            if file.parent == path:
                self.remove(file.relative_to(self.path).as_posix())
        with suppress(OSError):  # one is not empty, or not there
            while path != self.path:
                path.rmdir()
                path = path.parent

    def remove_empty_folders(self) -> None:
        """Delete empty folders below the store's folders."""
        for folder in FOLDERS:
            for path, below, _ in os.walk(self.local(folder), topdown=False):
                for name in below:
                    with suppress(OSError):  # it is not empty
                        Path(path, name).rmdir()

    def sweep(self) -> list[str]:
        """Delete temporary files of interrupted writers, and return their names.

        A folder that can't be listed is skipped.
        """
        self.check()
        left = [
            path
            for folder in ("", *FOLDERS, BLOCKS, INDEX, PAIRS)
            for path in self._walk(folder)
            if TEMPORARY.match(path.name)
        ]
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
