"""Object stores: S3, and by the same code Google Cloud Storage and Azure, as clients of a prefix of a bucket.

obstore asks the service, with the credentials and the endpoint of the environment, and tries failed requests again. A
process opens its own clients.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from featurestore.errors import MissingDependency

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

ADDRESS = re.compile(r"(?P<scheme>s3|gs|az)://(?P<bucket>[^/]*)/*(?P<prefix>.*?)/*", re.DOTALL)
ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
PAGE = 1000  # objects in an answer to a list
ATTEMPTS = 3  # at what obstore does not try again: credentials expire and are renewed, and lists are cut off
PAUSE = 0.5  # seconds before the second attempt
RETRIES = 10  # of a request that failed; obstore waits longer before each
FIRST_WAIT = timedelta(seconds=0.1)  # before the first of them
LONGEST_WAIT = timedelta(seconds=15)
GIVE_UP = timedelta(seconds=60)  # after which it is not tried again
CLIENT = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "10m"}
SLOWEST = 2**18  # bytes a second, of an upload that is not given up
NO_OBJECT = "there is no object of this name"
STATUS = re.compile(r"status code: (\d+ [^:]*)")
FINAL = re.compile(r"after (\d+) retries, max_retries: \1\b|status code: 404|with invalid path")
CODE = re.compile(r"<Code>(\w+)</Code>")
SENDING = re.compile(r"Error performing \w+ (\w+://[^/\s]+).*HTTP error: error sending request", re.DOTALL)
# The system's word for it.
CAUSE = re.compile(r'\b(?:message|error): "(?:failed to lookup address information: )?([^"]+)"')
T = TypeVar("T")


class UnusableAddress(Exception):
    """An address names no bucket, or can't be used with the settings of the environment; the message says why."""


class NoObject(Exception):
    """There is no object of this name; the message says why."""


class RequestFailed(Exception):
    """The service failed, or denied the request, at every attempt; the message is the service's."""


class Address(NamedTuple):
    """The parts of an address like ``s3://bucket/prefix``."""

    scheme: str
    bucket: str
    prefix: str


def is_remote(where: str) -> bool:
    """Return whether an address is that of an object store."""
    return ADDRESS.fullmatch(where) is not None


def parse_address(where: str) -> Address:
    """Return the parts of the address of an object store, without slashes around the prefix.

    Raises:
        UnusableAddress: it names no bucket.
    """
    match = ADDRESS.fullmatch(where)
    assert match is not None
    if not match["bucket"]:
        raise UnusableAddress(f"{where} names no bucket; write it like {match['scheme']}://bucket/prefix")
    return Address(match["scheme"], match["bucket"], match["prefix"])


def located_remote(where: str) -> str:
    """Return the address of an object store without slashes at its end.

    Raises:
        UnusableAddress: it names no bucket.
    """
    scheme, bucket, prefix = parse_address(where)
    return f"{scheme}://{bucket}{'/' if prefix else ''}{prefix}"


class ObjectClient:
    """A client of the objects below a prefix of a bucket; names are what follows the prefix."""

    def __init__(self, where: str, *, upload_bytes: int | None = None) -> None:
        """Take the address; nothing is asked yet.

        Args:
            where: the address.
            upload_bytes: of the one object that this client uploads. It has time for that, and S3 checks its SHA-256.

        Raises:
            MissingDependency: obstore is not installed.
            UnusableAddress: it names no bucket, or the settings of the environment can't be used.
        """
        self.where, self._upload_bytes = where, upload_bytes
        self._store = _open(where, upload_bytes)

    def ask(self, request: Callable[[ObjectStore], T]) -> T:
        """Return the answer to a request; where obstore did not try again, a new client with new credentials does.

        Raises:
            NoObject: there is no object of this name.
            RequestFailed: the service failed, or denied the request, at every attempt.
        """
        from obstore.exceptions import BaseError

        began = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return request(self._store)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise RequestFailed(reason_of(error)) from error
                raise NoObject(NO_OBJECT) from None
            except ValueError:  # a control character, or an empty part
                raise NoObject("no object can have such a name") from None
            except BaseError as error:
                late = time.monotonic() - began > GIVE_UP.total_seconds()
                if attempt == ATTEMPTS or late or FINAL.search(str(error)):
                    raise RequestFailed(reason_of(error)) from error
                time.sleep(PAUSE * attempt)
                self._store = _open(self.where, self._upload_bytes)
        raise AssertionError("the last attempt returns or raises")

    def head(self, name: str) -> ObjectMeta:
        """Return the size, ETag and time of an object; raises as `ask` does."""
        import obstore

        return self.ask(lambda store: obstore.head(store, name))

    def pages(self, below: str | None = None) -> Iterator[Sequence[ObjectMeta]]:
        """Yield all objects, or those below a prefix, a thousand with each request.

        Raises:
            RequestFailed: they can't be listed.
        """
        import obstore
        from obstore.exceptions import BaseError

        pages: Iterator[Sequence[ObjectMeta]] | None = None
        last: str | None = None

        def more(store: ObjectStore) -> Sequence[ObjectMeta] | None:
            nonlocal pages
            try:
                pages = pages or iter(obstore.list(store, below, offset=last, chunk_size=PAGE))
                return next(pages, None)
            except BaseError:
                pages = None  # a list that failed has ended: another goes on from where it was
                raise

        while (page := self.ask(more)) is not None:
            if page:
                last = page[-1]["path"]
            yield page


def _open(where: str, upload_bytes: int | None) -> ObjectStore:
    """Return a client with the settings of the environment."""
    scheme, bucket, prefix = parse_address(where)
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError as error:
        raise MissingDependency(
            f"{where} needs a package that can't be loaded ({error}); install it: pip install 'featurestore[s3]'"
        ) from error
    client: dict[str, Any] = {**CLIENT, "allow_http": os.environ.get(ALLOW_HTTP[scheme], "").lower() == "true"}
    options: dict[str, Any] = {"prefix": prefix or None, "client_options": client}
    backoff = {"init_backoff": FIRST_WAIT, "max_backoff": LONGEST_WAIT, "base": 2}
    options["retry_config"] = {"max_retries": RETRIES, "retry_timeout": GIVE_UP, "backoff": backoff}
    if upload_bytes is not None:
        limit = GIVE_UP + timedelta(seconds=upload_bytes / SLOWEST)
        client["timeout"] = options["retry_config"]["retry_timeout"] = limit
        del client["read_timeout"]  # it counts from the beginning of a request, and so the upload too
        options.update({"checksum_algorithm": "SHA256"} if scheme == "s3" else {})
    endpoint = next((found for name in ENDPOINTS if (found := os.environ.get(name))), "")
    if scheme == "s3" and endpoint:
        options["endpoint"] = endpoint
        client["allow_http"] |= endpoint.startswith("http://")
    kinds: dict[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    try:
        return kinds[scheme](bucket, **options)
    except (BaseError, ValueError) as error:
        reason = reason_of(error)
        raise UnusableAddress(f"{where} can't be used with the settings of the environment: {reason}") from error


def reason_of(error: BaseException) -> str:
    """Return what the service said, or why its endpoint could not be reached, without the times of one attempt."""
    text, _, details = str(error).partition("\n\nDebug source")
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of your service"
    if unsent := SENDING.search(text):
        cause = CAUSE.search(details)
        return f"no connection to {unsent[1]}{f': {cause[1]}' if cause else ''}"
    status, code = STATUS.search(text), CODE.search(text)
    said = f"{status[1].strip()}{f' ({code[1]})' if code else ''}" if status else text.rpartition(" - ")[2]
    return " ".join(said.split())[:200] or type(error).__name__
