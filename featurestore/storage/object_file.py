"""Objects of a bucket as files: opened by one GET of their end, where Parquet has its footer, and read by ranges.

Ends are kept, since the partition of a name stays the same: to open it again costs no request. A range is asked for by
the object's ETag, so bytes of two objects never mix.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from featurestore.errors import ConfigError
from featurestore.storage.positioned_file import PositionedFile
from featurestore.system import NoObject, ObjectClient, RequestFailed, UnusableAddress, unreadable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

END = 2**17  # bytes that the first GET asks for; the footer of a partition of a thousand images has about as many
KEPT_BYTES = 2**26  # of ends
PARQUET = b"PAR1"
T = TypeVar("T")


class End(NamedTuple):
    """The last bytes of an object, with all of its Parquet footer."""

    size: int  # bytes of the object
    version: str | None  # its ETag
    data: bytes

    @property
    def start(self) -> int:
        """Where the bytes begin in the object."""
        return self.size - len(self.data)


class Objects:
    """The objects below a prefix of a bucket, for one process: its client, and the ends of objects that it read."""

    def __init__(self, where: str) -> None:
        """Take the address; nothing is asked yet.

        Raises:
            MissingDependency: obstore is not installed.
            ConfigError: the address, or the settings of the environment, can't be used.
        """
        self.where = where
        self._ends: OrderedDict[str, End] = OrderedDict()
        self._lock = threading.Lock()
        try:
            self.client = ObjectClient(where)
        except UnusableAddress as error:
            raise ConfigError(f"{error}; correct `partitions` in featurestore.toml") from error

    def address(self, name: str) -> str:
        """Return the address of an object, for messages."""
        return f"{self.where}/{name}"

    def ask(self, name: str, request: Callable[[ObjectStore], T]) -> T:
        """Return the answer to a request about an object.

        Raises:
            FileNotFoundError: there is no such object.
            UnreadableFile: the service failed at every attempt.
        """
        try:
            return self.client.ask(request)
        except NoObject as error:
            self.forget(name)
            raise FileNotFoundError(errno.ENOENT, str(error), self.address(name)) from error
        except RequestFailed as error:
            raise unreadable(self.address(name), str(error)) from error

    def open(self, name: str) -> ObjectFile:
        """Open an object: one GET, two if its footer is large, none if its end is kept; on Azure a HEAD besides.

        Raises as `ask` does.
        """
        with self._lock:
            end = self._ends.get(name)
        if end is None:
            end = self._read_end(name)
            with self._lock:
                self._ends[name] = end
                while len(self._ends) > 1 and sum(len(kept.data) for kept in self._ends.values()) > KEPT_BYTES:
                    self._ends.popitem(last=False)
        return ObjectFile(self, name, end)

    def read(self, name: str, start: int, stop: int, version: str | None) -> bytes:
        """Return a range of an object; one GET.

        Raises:
            FileNotFoundError: there is no such object any more.
            UnreadableFile: the service failed, or it is another object by now.
        """
        import obstore
        from obstore.exceptions import PreconditionError

        options: Any = {"range": (start, stop), **({"if_match": version} if version else {})}

        def get(store: ObjectStore) -> bytes | None:
            try:
                return bytes(obstore.get(store, name, options=options).bytes())
            except PreconditionError:
                return None

        data = self.ask(name, get) if start < stop else b""
        if data is None:
            self.forget(name)
            raise unreadable(self.address(name), "another object has replaced it while it was read")
        return data

    def known_version(self, name: str) -> str | None:
        """Return the ETag of an object whose end is kept, without its quotes; None of another."""
        with self._lock:
            end = self._ends.get(name)
        return end and plain(end.version)

    def forget(self, name: str, version: str | None = None) -> None:
        """Forget the end of an object, unless it is of this version."""
        with self._lock:
            end = self._ends.get(name)
            if end is not None and (version is None or plain(end.version) != version):
                del self._ends[name]

    def _read_end(self, name: str) -> End:
        import obstore
        from obstore.exceptions import NotSupportedError

        def get(store: ObjectStore) -> End:
            try:
                found = obstore.get(store, name, options={"range": {"suffix": END}})
            except NotSupportedError:  # as on Azure
                size = obstore.head(store, name)["size"]
                found = obstore.get(store, name, options={"range": (max(size - END, 0), size)})
            return End(found.meta["size"], found.meta["e_tag"], bytes(found.bytes()))

        end = self.ask(name, get)
        footer = int.from_bytes(end.data[-8:-4], "little") + 8 if end.data.endswith(PARQUET) else 0
        if len(end.data) < footer <= end.size:
            before = self.read(name, end.size - footer, end.start, end.version)
            return end._replace(data=before + end.data)
        return end


class ObjectFile(PositionedFile):
    """An object, opened for random access: a read is a GET of its range, unless the kept end has it."""

    def __init__(self, objects: Objects, name: str, end: End) -> None:
        """Take an object and its end."""
        super().__init__(end.size)
        self._objects, self._name, self._end = objects, name, end

    def read(self, size: int | None = -1) -> bytes:
        """Return the bytes of a range, fewer only at the end of the object.

        Raises:
            FileNotFoundError: there is no such object any more.
            UnreadableFile: the service failed, or it is another object by now.
        """
        end, start = self._end, self._at
        stop = end.size if size is None or size < 0 else min(start + size, end.size)
        before = self._objects.read(self._name, start, min(stop, end.start), end.version)
        data = before + end.data[max(start - end.start, 0) : max(stop - end.start, 0)]
        self._at += len(data)
        return data


def plain(version: str | None) -> str | None:
    """Return an ETag without its quotes, which lists of Azure leave out."""
    return version and version.strip('"')


_OPEN: dict[tuple[str, int], Objects] = {}


def objects_at(where: str) -> Objects:
    """Return the objects at an address: each process has one client of them. Raises as `Objects` does."""
    key = where, os.getpid()
    if key not in _OPEN:
        _OPEN[key] = Objects(where)
    return _OPEN[key]


def find_objects(address: str) -> tuple[Objects, str]:
    """Return where an object is, and its name there.

    Raises:
        FileNotFoundError: this process has opened no prefix above it.
    """
    above = [where for where, process in _OPEN if process == os.getpid() and address.startswith(f"{where}/")]
    if not above:
        raise FileNotFoundError(errno.ENOENT, "no store has its partitions there", address)
    where = max(above, key=len)
    return objects_at(where), address.removeprefix(f"{where}/")
