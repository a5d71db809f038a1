"""Partitions in an object store, below a prefix of a bucket: published by one conditional PUT, and never changed.

The payload is in the name of a partition, so what exists already is the same. The PUT carries a SHA-256, by which the
service checks what arrives, and which HEAD tells later.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from duckdb import DuckDBPyConnection

from featurestore.errors import ConfigError, CorruptFile, NotWritable, UnreadableFile
from featurestore.storage.object_file import Objects, objects_at, plain
from featurestore.storage.partitions import TEMPORARY, FolderPartitions, Listing, Partitions, RemotePath, State
from featurestore.system import (
    NO_OBJECT,
    NoObject,
    ObjectClient,
    RequestFailed,
    UnusableAddress,
    file_digest,
    located_remote,
    parse_address,
    unreadable,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

SHA256 = "sha256"  # the name of the metadata
MOST_BYTES = 5 * 2**30  # of an object that is put or copied in one part; of several, no checksum is of the whole
CONFLICTS = 10  # after which a PUT that met another one is given up
PAUSE = 0.5  # seconds before the second attempt
PIECE = 2**23  # bytes that are hashed together


@dataclass(frozen=True)
class RemotePartitions(Partitions):
    """Partitions below the address ``where``, like ``s3://bucket/prefix``."""

    address: str
    is_local: ClassVar[bool] = False

    @classmethod
    def at_address(cls, where: str) -> RemotePartitions:
        """Return the partitions at an address that a user wrote.

        Raises:
            ConfigError: it names no bucket, or the settings of the environment can't be used.
            MissingDependency: obstore is not installed.
        """
        try:
            found = cls(located_remote(where))
        except UnusableAddress as error:
            raise ConfigError(f"{error}; correct `partitions` in featurestore.toml") from error
        objects_at(found.where)
        return found

    @property
    def where(self) -> str:
        """The address."""
        return self.address

    def at(self, name: str) -> RemotePath:
        """Return the place of a partition."""
        return RemotePath(self, name)

    def open(self, name: str) -> pa.NativeFile:
        """Open a partition by one GET, or by none; see `Partitions.open`."""
        return pa.PythonFile(self._objects.open(name), "r")

    def state(self, name: str) -> State | None:
        """Return the state of a partition, by one HEAD; see `Partitions.state`."""
        try:
            return self._state(name, self._ask_head(name))
        except FileNotFoundError:
            return None

    def version(self, name: str) -> str | None:
        """Return the ETag of a partition, by one HEAD, or by none if it was opened before; see `Partitions.version`."""
        if known := self._objects.known_version(name):
            return known
        state = self.state(name)
        return None if state is None else state.version

    def list(self, folder: str, suffix: str) -> Listing:
        """Return the partitions below a folder, a thousand with each request, and an error if they can't be listed."""
        found: dict[str, State] = {}
        try:
            for page in self._objects.client.pages(folder):
                for meta in page:
                    name = meta["path"]
                    if name.endswith(suffix) and not TEMPORARY.match(PurePosixPath(name).name):
                        found[name] = self._state(name, meta)
        except (RequestFailed, NoObject) as error:
            return found, [unreadable(self._objects.address(folder), str(error))]
        return found, []

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a partition's bytes, all of which are read by one GET; see `Partitions.digest`."""
        import obstore

        def get(store: ObjectStore) -> str:
            sha = hashlib.sha256()
            for piece in obstore.get(store, name).stream(min_chunk_size=PIECE):
                sha.update(piece)
            return sha.hexdigest()

        return self._objects.ask(name, get)

    def checksum(self, name: str) -> str:
        """Return the SHA-256 that the PUT of a partition carried, by one HEAD; without one, it is read.

        Raises:
            FileNotFoundError: there is no such partition.
            UnreadableFile: the service failed.
        """
        import obstore

        def head(store: ObjectStore) -> str | None:
            return obstore.get(store, name, options={"head": True}).attributes.get(SHA256)

        return self._objects.ask(name, head) or self.digest(name)

    def put(self, temporary: Path, name: str) -> None:
        """Upload a local file by one PUT, unless it is there already, and remove it; see `Partitions.put`.

        Raises:
            NotWritable: the service denied it.
            UnreadableFile: the service failed.
            CorruptFile: there is another object of this name, or the file is too large.
        """
        self.upload(temporary, name)
        temporary.unlink()

    def upload(self, file: Path, name: str) -> None:
        """Upload a local file as `put` does, and keep it."""
        size, digest = file.stat().st_size, file_digest(file)
        if size > MOST_BYTES:
            raise CorruptFile(
                f"{self.address}/{name} would have {size:,} bytes, and an object store takes {MOST_BYTES:,} in one "
                "part; make smaller chunks with: featurestore init --chunk-size"
            )
        with self._writing(name), file.open("rb") as opened:
            client = ObjectClient(self.address, upload_bytes=size)
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for attempt in range(1, CONFLICTS + 1):
                    if client.ask(lambda store: _put(store, name, data, digest)):
                        break
                    if self._is_there(name, size, digest):
                        break
                    time.sleep(PAUSE * attempt)
                else:
                    raise RequestFailed("409 Conflict (ConditionalRequestConflict)")
        self._objects.forget(name)

    def copy(self, other: Partitions, name: str) -> bool:
        """Copy a partition within the service, or upload one of a folder, and return True; False between two services.

        Raises:
            FileNotFoundError: there is no such partition in the other.
            NotWritable: the service denied it.
            UnreadableFile: the service failed.
            CorruptFile: there is another object of this name.
        """
        if isinstance(other, FolderPartitions):
            self.upload(other.local(name), name)
            return True
        if not isinstance(other, RemotePartitions):
            return False
        source, target = parse_address(other.where), parse_address(self.where)
        state = other.state(name)
        if source[:2] != target[:2] or (state is not None and state.size > MOST_BYTES):
            return False
        if state is None:
            raise FileNotFoundError(errno.ENOENT, NO_OBJECT, f"{other.where}/{name}")
        if not self._is_there(name, state.size, other.checksum(name)):
            names = [f"{where.prefix}/{name}".removeprefix("/") for where in (source, target)]
            with self._writing(name):
                ObjectClient(f"{target.scheme}://{target.bucket}").ask(lambda store: _copy(store, *names))
        return True

    def remove(self, name: str) -> None:
        """Delete a partition, if it exists.

        Raises:
            NotWritable: the service denied it.
            UnreadableFile: the service failed.
        """
        import obstore

        with self._writing(name):
            try:
                self._objects.client.ask(lambda store: obstore.delete(store, name))
            except NoObject:
                pass  # as after a DELETE whose answer was lost
        self._objects.forget(name)

    def for_sql(self, name: str) -> str:
        """Return the address of a partition."""
        return self._objects.address(name)

    def register(self, connection: DuckDBPyConnection) -> None:
        """Teach a connection to read partitions of any object store, without httpfs."""
        from featurestore.storage.object_filesystem import register

        register(connection)

    @property
    def _objects(self) -> Objects:
        return objects_at(self.address)

    def _ask_head(self, name: str) -> ObjectMeta:
        import obstore

        return self._objects.ask(name, lambda store: obstore.head(store, name))

    def _state(self, name: str, meta: ObjectMeta) -> State:
        version = plain(meta["e_tag"])
        self._objects.forget(name, version or "")
        return State(meta["size"], version, round(meta["last_modified"].timestamp() * 1e9))

    def _is_there(self, name: str, size: int, digest: str) -> bool:
        """Return True if the object is there already, False if there is none of its name."""
        state = self.state(name)
        if state is None:
            return False
        if state.size != size or self.checksum(name) != digest:
            raise CorruptFile(
                f"{self.address}/{name} is another object than the partition of its name, and is not replaced; "
                "move it away, and run the same command again"
            )
        return True

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except (RequestFailed, NoObject) as error:
            address, reason = self._objects.address(name), str(error)
            if reason.startswith("403"):
                raise NotWritable(
                    f"{address} can't be changed: {reason}; let these credentials put and delete objects there"
                ) from error
            failed = UnreadableFile(
                f"{address} can't be changed: {reason}; nothing half-written is there. Check the network, the "
                "credentials and the endpoint, then run the same command again"
            )
            failed.path, failed.reason = address, reason
            raise failed from error


def _put(store: ObjectStore, name: str, data: mmap.mmap, digest: str) -> bool:
    """Put an object, and return True; False if there is one, or another request is about to make one."""
    import obstore
    from obstore.exceptions import AlreadyExistsError

    attributes: Any = {SHA256: digest}
    try:
        obstore.put(store, name, data, mode="create", use_multipart=False, attributes=attributes)
    except AlreadyExistsError:
        return False
    return True


def _copy(store: ObjectStore, name: str, target: str) -> None:
    import obstore

    obstore.copy(store, name, target)
