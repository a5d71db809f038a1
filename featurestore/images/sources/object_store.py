"""Object stores as a source: S3, and by the same code Google Cloud Storage and Azure. Every image is an object.

obstore asks the service, with the credentials and the endpoint of the environment, and tries failed requests again. A
process opens its own client.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from featurestore.errors import DatasetError, MissingDependency
from featurestore.images.sources.base import HEAD, Entry, Missing, ReadFailed, Source, TooLarge
from featurestore.images.sources.container import is_image
from featurestore.system import unreadable

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

REMOTE = re.compile(r"(?P<scheme>s3|gs|az)://(?P<bucket>[^/]*)/*(?P<prefix>.*?)/*", re.DOTALL)
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
PAGE = 1000  # objects in an answer to a list
ATTEMPTS = 3  # at what obstore does not try again: credentials expire and are renewed, and lists are cut off
PAUSE = 0.5  # seconds before the second attempt
RETRIES = 10  # of a request that failed; obstore waits longer before each
GIVE_UP = timedelta(seconds=60)  # after which it is not tried again
CLIENT = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "10m"}
NO_OBJECT = "there is no object of this name"
STATUS = re.compile(r"status code: (\d+ [^:]*)")
FINAL = re.compile(r"after \d+ retries|status code: 404|with invalid path")
CODE = re.compile(r"<Code>(\w+)</Code>")
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
        self._store = _client(where)

    def entries(self) -> Iterator[Entry]:
        """Yield the objects that are images by their names, sorted as S3 sorts; hidden ones are skipped."""
        return (entry for entry in self.objects() if is_image(entry.name))

    def objects(self) -> Iterator[Entry]:
        """Yield every object, a thousand with each request.

        Raises:
            DatasetError: they can't be listed.
        """
        import obstore
        from obstore.exceptions import BaseError

        pages: Iterator[Sequence[ObjectMeta]] | None = None
        last = ""

        def more() -> Sequence[ObjectMeta] | None:
            nonlocal pages
            try:
                pages = pages or iter(obstore.list(self._store, offset=last or None, chunk_size=PAGE))
                return next(pages, None)
            except BaseError:
                pages = None  # a list that failed has ended: another goes on from where it was
                raise

        while True:
            try:
                page = self._asked(more)
            except (ReadFailed, Missing) as error:
                raise DatasetError(f"{self.where} can't be listed after {last!r}: {error}. {_advice(error)}") from error
            if page is None:
                return
            for meta in page:
                last = meta["path"]
                yield _entry(last, meta)

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
            first = self._asked(lambda: next(iter(obstore.list(self._store, chunk_size=1)), None))
        except (ReadFailed, Missing) as error:
            return f"{self.where} can't be listed ({error})"
        return None if first else f"there are no objects below {self.where}"

    def stat(self, name: str) -> Entry:
        """Return the size of an object, and a number made of its ETag; one HEAD."""
        import obstore

        try:
            return _entry(name, self._asked(lambda: obstore.head(self._store, name)))
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

        def get() -> Fetched:
            found = obstore.get(self._store, name)
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

    def _asked(self, ask: Callable[[], T]) -> T:
        """Return the answer to a request; where obstore did not try again, a new client with new credentials does."""
        from obstore.exceptions import BaseError

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise ReadFailed(_reason(error)) from error
                raise Missing(NO_OBJECT) from None
            except ValueError:  # a control character, or an empty part
                raise Missing("no object can have such a name") from None
            except BaseError as error:
                if attempt == ATTEMPTS or FINAL.search(str(error)):
                    raise ReadFailed(_reason(error)) from error
                time.sleep(PAUSE * attempt)
                self._store = _client(self.where)
        raise AssertionError("the last attempt returns or raises")


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


def is_remote(where: str) -> bool:
    """Return whether an address is that of an object store."""
    return REMOTE.fullmatch(where) is not None


def located_remote(where: str) -> str:
    """Return the address of an object store without slashes at its end.

    Raises:
        DatasetError: it names no bucket.
    """
    match = REMOTE.fullmatch(where)
    assert match is not None
    if not match["bucket"]:
        raise DatasetError(f"{where} names no bucket; write it like {match['scheme']}://bucket/prefix")
    return f"{match['scheme']}://{match['bucket']}{'/' if match['prefix'] else ''}{match['prefix']}"


def _client(where: str) -> ObjectStore:
    """Return a client with the settings of the environment."""
    match = REMOTE.fullmatch(where)
    assert match is not None
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError as error:
        raise MissingDependency(
            f"{where} needs a package that can't be loaded ({error}); install it: pip install 'featurestore[s3]'"
        ) from error
    options: dict[str, Any] = {
        "prefix": match["prefix"] or None,
        "client_options": dict(CLIENT),
        "retry_config": {"max_retries": RETRIES, "retry_timeout": GIVE_UP},
    }
    endpoint = next((found for name in ENDPOINTS if (found := os.environ.get(name))), "")
    if match["scheme"] == "s3" and endpoint:
        options["endpoint"] = endpoint
        options["client_options"]["allow_http"] = endpoint.startswith("http://")
    kinds: dict[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    try:
        return kinds[match["scheme"]](match["bucket"], **options)
    except (BaseError, ValueError) as error:
        raise DatasetError(f"{where} can't be used with the settings of the environment: {_reason(error)}") from error


def _entry(name: str, meta: ObjectMeta) -> Entry:
    """Return the size, and 63 bits of the hash of the ETag, or of the time where there is none."""
    state = meta["e_tag"] or meta["last_modified"].isoformat()
    return Entry(name, meta["size"], int.from_bytes(hashlib.sha256(state.encode()).digest()[:8], "big") >> 1)


def _reason(error: BaseException) -> str:
    """Return what the service said, or why it could not be reached, without addresses and times of one attempt."""
    text = str(error).partition("\n\nDebug source")[0]
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of your service"
    status, code = STATUS.search(text), CODE.search(text)
    said = f"{status[1].strip()}{f' ({code[1]})' if code else ''}" if status else text.rpartition(" - ")[2]
    return " ".join(said.split())[:200] or type(error).__name__


def _advice(error: BaseException) -> str:
    if "contained empty path segment" in str(error) or "illegal character" in str(error):
        return "Rename the object, or give a dataset that names the images."
    return "Check the address, the credentials and the endpoint (docs/sources.md)."
