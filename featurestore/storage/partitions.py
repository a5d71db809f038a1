"""Where a store keeps its partitions: in its folder, or elsewhere.

Names are those that the catalog records, relative to the store, with ``/``. Code that asks for a partition asks the
`Partitions` of its `Root`; only the folder's kind has local paths.
"""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import pyarrow as pa

from featurestore.errors import UnreadableFile
from featurestore.system import file_digest, files_below, put_in_place, status_of, writing

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection  # a worker never needs it, and it takes 0.15 s to import

PARTITIONS = "partitions"
TEMPORARY = re.compile(r"^\.tmp-[0-9a-f]{12}-")


class State(NamedTuple):
    """The state of one file, as its keeper reports it."""

    size: int  # bytes
    version: str | None  # that changes with the content; None: the keeper has none
    modified_ns: int  # time of the last change, in nanoseconds since the epoch


Listing = tuple[dict[str, State], list[UnreadableFile]]
Names = tuple[list[str], list[UnreadableFile]]


class Partitions(ABC):
    """The keeper of a store's partitions. It can be pickled, compared and hashed: workers and caches hold it."""

    is_local: ClassVar[bool]  # whether `local` has paths

    @property
    @abstractmethod
    def where(self) -> str:
        """The folder's path, or the address, for messages."""

    @abstractmethod
    def at(self, name: str) -> Place:
        """Return the place of a file."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """Open a file for random access.

        Raises:
            FileNotFoundError: there is no such file.
            UnreadableFile: it can't be opened.
        """

    @abstractmethod
    def state(self, name: str) -> State | None:
        """Return the state of a file, None if there is none.

        Raises:
            UnreadableFile: the keeper does not say.
        """

    def version(self, name: str) -> str | None:
        """Return the version of a file, as in its state; None if the keeper has none.

        Raises:
            UnreadableFile: the keeper does not say.
        """
        return None

    @abstractmethod
    def list(self, folder: str, suffix: str) -> Listing:
        """Return the committed files below a folder that end in ``suffix``, and an error for what can't be listed."""

    def names(self, folder: str, suffix: str) -> Names:
        """Return the sorted names of what `list` returns, and its errors."""
        found, failed = self.list(folder, suffix)
        return sorted(found), failed

    @abstractmethod
    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file's bytes, in hex; all of them are read.

        Raises:
            FileNotFoundError: there is no such file.
            UnreadableFile: it can't be read.
        """

    def checksum(self, name: str) -> str:
        """Return the SHA-256 of a file as its keeper records it; what `digest` returns where that records none."""
        return self.digest(name)

    @abstractmethod
    def put(self, temporary: Path, name: str) -> None:
        """Publish a local file as ``name``, all at once. Afterwards the local file is gone.

        Raises:
            NotWritable: this user may not write there.
            UnreadableFile: the keeper does not answer. Nothing half-written is seen.
        """

    def copy(self, other: Partitions, name: str) -> bool:
        """Copy a file of another keeper at once, and return True; False if its bytes have to be read and `put`."""
        return False

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""

    @abstractmethod
    def for_sql(self, name: str) -> str:
        """Return what DuckDB reads a file by."""

    @abstractmethod
    def register(self, connection: DuckDBPyConnection) -> None:
        """Teach a connection to read what `for_sql` returns."""


@dataclass(frozen=True)
class FolderPartitions(Partitions):
    """Partitions in the store's folder."""

    folder: Path  # of the store
    is_local: ClassVar[bool] = True

    @property
    def where(self) -> str:
        """The store's folder."""
        return str(self.folder)

    def local(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    def at(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    def open(self, name: str) -> pa.NativeFile:
        """Open a file; see `Partitions.open`."""
        return pa.OSFile(str(self.folder / name))

    def state(self, name: str) -> State | None:
        """Return the state of a file, by one ``stat``; see `Partitions.state`."""
        found = status_of(self.folder / name)
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return State(found.st_size, None, found.st_mtime_ns)

    def list(self, folder: str, suffix: str) -> Listing:
        """Return the committed files below a folder, and an error for what the system does not tell."""
        names, failed = self.names(folder, suffix)
        found = {}
        for name in names:
            try:
                state = self.state(name)
            except UnreadableFile as error:
                failed.append(error)
            else:
                found.update({name: state} if state is not None else {})
        return found, failed

    def names(self, folder: str, suffix: str) -> Names:
        """Return the names of the committed files below a folder, without a ``stat`` of each, and the errors."""
        found, failed = files_below(self.folder / folder)
        wanted = (path for path in found if path.name.endswith(suffix) and not TEMPORARY.match(path.name))
        return sorted(path.relative_to(self.folder).as_posix() for path in wanted), failed

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file's bytes; see `Partitions.digest`."""
        return file_digest(self.folder / name)

    def put(self, temporary: Path, name: str) -> None:
        """Rename a flushed file of the same disk; see `Partitions.put`."""
        put_in_place(temporary, self.folder / name)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        with writing(self.folder / name):
            (self.folder / name).unlink(missing_ok=True)

    def for_sql(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / name)

    def register(self, connection: DuckDBPyConnection) -> None:
        """Do nothing: DuckDB reads paths."""


@dataclass(frozen=True)
class RemotePath(os.PathLike[str]):
    """The place of a file that is not in the store's folder, as a `Path` is that of one that is."""

    partitions: Partitions
    key: str  # the name of the file, relative to the store

    @property
    def name(self) -> str:
        """The last part of the file's name."""
        return PurePosixPath(self.key).name

    def __fspath__(self) -> str:
        """Return the address."""
        return f"{self.partitions.where}/{self.key}"

    def __str__(self) -> str:
        """Return the address."""
        return self.__fspath__()


Place = Path | RemotePath


def open_at(place: Place) -> pa.NativeFile:
    """Open the file at a place for random access; see `Partitions.open`."""
    return pa.OSFile(str(place)) if isinstance(place, Path) else place.partitions.open(place.key)


def is_there(place: Place) -> bool:
    """Return whether there is something at a place.

    Raises:
        UnreadableFile: its keeper does not say.
    """
    return status_of(place) is not None if isinstance(place, Path) else place.partitions.state(place.key) is not None
