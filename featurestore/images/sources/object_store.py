"""Object stores as a source: S3, Google Cloud Storage and Azure. Every image is an object below a prefix."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from featurestore.errors import DatasetError
from featurestore.images.sources.base import HEAD, Entry, Missing, ReadFailed, Source, TooLarge
from featurestore.images.sources.container import is_image
from featurestore.system import NO_OBJECT, NoObject, ObjectClient, RequestFailed, UnusableAddress, unreadable
from featurestore.system import located_remote as without_slashes

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

T = TypeVar("T")


class Fetched(NamedTuple):
    """The answer to one GET.

    Attributes:
        entry: its size and version.
        data: its bytes; None if there are more of them than the limit.
        head: the first bytes, if ``data`` is None.
    """

    entry: Entry
    data: bytes | None
    head: bytes = b""


class Objects(Source):
    """The objects below a prefix of a bucket; the names are what follows the prefix."""

    def __init__(self, where: str) -> None:
        """Take the address; nothing is asked yet.

        Raises:
            MissingDependency: obstore is not installed.
            DatasetError: it names no bucket, or the settings of the environment can't be used.
        """
        self.where = where
        with _usable():
            self._client = ObjectClient(where)

    def entries(self) -> Iterator[Entry]:
        """Yield the objects that are images by their names, sorted as S3 sorts; hidden ones are skipped."""
        return (entry for entry in self.objects() if is_image(entry.name))

    def objects(self) -> Iterator[Entry]:
        """Yield every object, a thousand with each request.

        Raises:
            DatasetError: they can't be listed.
        """
        last = ""
        try:
            for page in self._client.pages():
                for meta in page:
                    last = meta["path"]
                    yield _entry(last, meta)
        except (RequestFailed, NoObject) as error:
            raise DatasetError(f"{self.where} can't be listed after {last!r}: {error}. {_advice(error)}") from error

    def listed(self) -> Source:
        """Return the objects as one list tells them, or this source if the list can't tell their names."""
        try:
            return Listed(self, {entry.name: entry for entry in self.objects()})
        except DatasetError:
            return self

    def why_absent(self) -> str | None:
        """Return why there are no objects, None if there are some; one request."""
        import obstore

        try:
            first = self._asked(lambda store: next(iter(obstore.list(store, chunk_size=1)), None))
        except (ReadFailed, Missing) as error:
            return f"{self.where} can't be listed ({error})"
        return None if first else f"there are no objects below {self.where}"

    def stat(self, name: str) -> Entry:
        """Return the size of an object, and a number made of its ETag; one HEAD."""
        import obstore

        try:
            return _entry(name, self._asked(lambda store: obstore.head(store, name)))
        except ReadFailed as error:
            raise unreadable(f"{self.where}/{name}", str(error)) from error

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of an object; one GET."""
        found = self.fetch(name, limit)
        if found.data is None:
            raise TooLarge(found.entry.n_bytes or 0, found.head)
        return found.data

    def fetch(self, name: str, limit: int) -> Fetched:
        """Return an object with its size and version; one GET.

        Raises:
            Missing: there is none of this name.
            ReadFailed: the service failed, or denied it, at every attempt.
        """
        import obstore

        def get(store: ObjectStore) -> Fetched:
            found = obstore.get(store, name)
            entry = _entry(name, found.meta)
            if found.meta["size"] > limit:
                return Fetched(entry, None, bytes(next(iter(found.stream(min_chunk_size=HEAD)), b""))[:HEAD])
            return Fetched(entry, bytes(found.bytes()))

        return self._asked(get)

    def is_same(self) -> bool:
        """Return True: one object is compared by its ETag, and the whole has no state."""
        return True

    def close(self) -> None:
        """Do nothing: the client closes with its process."""

    def _asked(self, request: Callable[[ObjectStore], T]) -> T:
        """Return the answer to a request, with the errors of a source."""
        try:
            return self._client.ask(request)
        except NoObject as error:
            raise Missing(str(error)) from error
        except RequestFailed as error:
            raise ReadFailed(str(error)) from error


class Listed(Source):
    """Objects as they were when they were listed; what is asked of one costs no request, and reading it one."""

    def __init__(self, source: Objects, entries: dict[str, Entry]) -> None:
        """Take the objects by name."""
        self.where, self._source, self._entries = source.where, source, entries

    def entries(self) -> Iterator[Entry]:
        """Yield the images."""
        return (entry for entry in self._entries.values() if is_image(entry.name))

    def stat(self, name: str) -> Entry:
        """Return what the list says."""
        try:
            return self._entries[name]
        except KeyError:
            raise Missing(NO_OBJECT) from None

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of an object."""
        return self._source.read(name, limit)


def located_remote(where: str) -> str:
    """Return the address of an object store without slashes at its end.

    Raises:
        DatasetError: it names no bucket.
    """
    with _usable():
        return without_slashes(where)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except UnusableAddress as error:
        raise DatasetError(str(error)) from error


def _entry(name: str, meta: ObjectMeta) -> Entry:
    """Return the size, and 63 bits of the hash of the ETag, or of the time where there is none."""
    state = meta["e_tag"] or meta["last_modified"].isoformat()
    return Entry(name, meta["size"], int.from_bytes(hashlib.sha256(state.encode()).digest()[:8], "big") >> 1)


def _advice(error: BaseException) -> str:
    if "contained empty path segment" in str(error) or "illegal character" in str(error):
        return "Rename the object, or give a dataset that names the images."
    return "Check the address, the credentials and the endpoint (docs/sources.md)."
