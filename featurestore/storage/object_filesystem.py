"""Objects of a bucket for DuckDB: a file system that opens them for reading, and can do nothing else.

DuckDB takes it in place of its extension httpfs, which it would download. Its settings hold here too: a query reads
only the paths that it may.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from duckdb import DuckDBPyConnection
from fsspec import AbstractFileSystem

from featurestore.storage.object_file import ObjectFile, find_objects

PROTOCOLS = ("s3", "gs", "az")
UNCHANGED = datetime.fromtimestamp(0, UTC)


class ObjectFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no annotations
    """The objects at the addresses that this process has opened; paths are addresses."""

    protocol = PROTOCOLS
    cachable = False

    def open(self, path: str, mode: str = "rb", **_: Any) -> ObjectFile:
        """Open an object for reading."""
        if mode != "rb":
            raise PermissionError(f"{path} is only read")
        objects, name = find_objects(path)
        return objects.open(name)

    def size(self, path: str) -> int:
        """Return the bytes of an object."""
        return self.open(path).size

    def exists(self, path: str, **_: Any) -> bool:
        """Return whether there is an object."""
        try:
            self.open(path)
        except FileNotFoundError:
            return False
        return True

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the path: the list of a view has no patterns."""
        return [path]

    def modified(self, path: str) -> datetime:
        """Return a time that is always the same, as the object is."""
        return UNCHANGED


def register(connection: DuckDBPyConnection) -> None:
    """Let a connection read objects."""
    if not connection.filesystem_is_registered(PROTOCOLS[0]):
        connection.register_filesystem(ObjectFileSystem())
