"""Images in an object store, one by one and during a run.

A run asks for an image several times: for its size in pixels, for its state, and for its bytes. One GET answers all.
A service that does not answer ends the run; an object that is not there is a missing image if others are.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from featurestore.errors import ImagesGone, UnreadableFile
from featurestore.formatting import counted
from featurestore.images.image_container import Member
from featurestore.images.sources.address import opened_at
from featurestore.images.sources.base import HEAD, Missing, ReadFailed, TooLarge
from featurestore.images.sources.container import AGAIN
from featurestore.images.sources.object_store import Fetched, Objects

WITNESSES = 8  # images that were there when the run began
KEPT_BYTES = 2**27  # of images that were fetched and not read yet; more than that is fetched again
State = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class RemoteImage(Member):
    """One image in an object store, as it is now."""

    def __fspath__(self) -> str:
        """Return its address."""
        return f"{self.where}/{self.name}"

    def state(self) -> State:
        """Return its size and version, see `state_of_image`; one HEAD.

        Raises:
            UnreadableFile: the service failed.
        """
        try:
            entry = opened_at(self.where).stat(self.name)
        except Missing:
            return None
        return entry.n_bytes or 0, entry.version or 0


@dataclass(frozen=True, slots=True)
class RunObject(RemoteImage):
    """One image during a run. ``identity`` is that of the run."""

    def read(self, limit: int) -> bytes:
        """Return the bytes, and forget them.

        Raises:
            ImagesGone: the service failed.
        """
        try:
            return _within(_fetched(self, limit), limit)
        finally:
            _kept(self.identity).pop(self.name, None)

    def peek(self, limit: int) -> bytes:
        """Return the bytes, and keep them for `read`; raises as it does."""
        return _within(_fetched(self, limit), limit)

    def state(self) -> State:
        """Return the size and version that the bytes have which `read` returns.

        Raises:
            ImagesGone: the service failed.
        """
        try:
            entry = _fetched(self, None).entry
        except Missing:
            return None
        return entry.n_bytes or 0, entry.version or 0


@dataclass(frozen=True)
class RemoteImages:
    """The images in an object store when a run began. It is sent to workers with every task; see `ImageFolder`.

    Attributes:
        path: the address.
        witnesses: names of images that were there.
        run: differs from run to run.
    """

    path: str
    witnesses: tuple[str, ...]
    run: str

    def file(self, name: str) -> RunObject:
        """Return an image."""
        return RunObject(self.path, name, self.run)

    def was_read(self, name: str, n_bytes: int) -> None:
        """Do nothing: the witnesses suffice."""

    def refuse_if_gone(self, name: str, reason: str) -> None:
        """Refuse to count an image as missing if no image of this run is there any more.

        Raises:
            ImagesGone: none is, or the service failed.
        """
        try:
            there = any(RemoteImage(self.path, witness).state() is not None for witness in self.witnesses)
        except UnreadableFile as error:
            raise unreachable(self.path, name, error.reason) from error
        if self.witnesses and not there:
            raise ImagesGone(
                f"the images are gone: nothing in {self.path} is there any more, the last time {name} "
                f"({reason}). {AGAIN}"
            )


def open_objects(source: Objects, *, read: Iterable[str], wanted: Iterable[str]) -> RemoteImages:
    """Check the images at the beginning of a run, as `open_folder` does: a few names are asked for.

    Raises:
        ImagesGone: none of them is there, or the service failed.
    """
    before = list(read)
    looked, witnesses = [*before, *wanted], list[str]()
    for n, name in enumerate(looked, 1):
        try:
            found = RemoteImage(source.where, name).state()
        except UnreadableFile as error:
            raise unreachable(source.where, name, error.reason) from error
        witnesses += [name] if found is not None else []
        if witnesses and n >= WITNESSES:
            break
    if looked and not witnesses:
        why = ", though some were read from it before" if before else f" by any of {counted(len(looked), 'name')}"
        raise ImagesGone(
            f"the images are gone: there are none in {source.where}{why}. Nothing is recorded; put them back, or "
            "correct `images` in featurestore.toml, and run the same command again"
        )
    return RemoteImages(source.where, tuple(witnesses), uuid.uuid4().hex)


def unreachable(where: str, name: str, reason: str) -> ImagesGone:
    """Return the error for a service that failed at every attempt."""
    return ImagesGone(
        f"the images can't be read: {where}/{name} gave {reason}. Nothing of this is recorded; check the network, the "
        "credentials and the endpoint, and run the same command again"
    )


@lru_cache(maxsize=1)  # a worker serves one run at a time
def _kept(run: str | None) -> OrderedDict[str, Fetched | Missing]:
    return OrderedDict()


def _fetched(image: RunObject, limit: int | None) -> Fetched:
    """Return the answer to a GET, which is asked once; a ``limit`` of None asks for what can be kept.

    Raises:
        Missing: there is no such image.
        ImagesGone: the service failed.
    """
    kept = _kept(image.identity)
    found = kept.get(image.name)
    if isinstance(found, Missing):
        raise found
    if found is not None and (limit is None or found.data is not None or _is_too_large(found, limit)):
        return found
    source = opened_at(image.where)
    assert isinstance(source, Objects)
    try:
        found = source.fetch(image.name, KEPT_BYTES if limit is None else limit)
    except ReadFailed as error:
        raise unreachable(image.where, image.name, str(error)) from error
    except Missing as error:
        kept[image.name] = error
        raise
    kept[image.name] = found
    while len(kept) > 1 and sum(len(f.data or b"") for f in kept.values() if isinstance(f, Fetched)) > KEPT_BYTES:
        kept.popitem(last=False)
    return found


def _is_too_large(found: Fetched, limit: int) -> bool:
    return (found.entry.n_bytes or 0) > limit


def _within(found: Fetched, limit: int) -> bytes:
    if found.data is None or len(found.data) > limit:
        raise TooLarge(found.entry.n_bytes or 0, found.head or (found.data or b"")[:HEAD])
    return found.data
