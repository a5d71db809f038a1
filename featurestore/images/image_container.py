"""Containers of images during a run: a file of many images that goes away, or becomes another, ends the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import ImagesGone
from featurestore.formatting import counted
from featurestore.images.sources.address import container_at, source_at
from featurestore.images.sources.base import Damaged, Missing
from featurestore.images.sources.container import AGAIN, Container


@dataclass(frozen=True, slots=True)
class Member:
    """One image in a container, as any process can read it.

    Attributes:
        where: the address of the container.
        name: of the image.
        identity: of the container when the run began; None reads it as it is now.
    """

    where: str
    name: str
    identity: str | None = None

    def __fspath__(self) -> str:
        """Return what to call it in a message."""
        return str(Path(self.where, self.name))

    def read(self, limit: int) -> bytes:
        """Return the bytes; raises as `Source.read` does.

        Raises:
            ImagesGone: the container is gone, or another one than when the run began.
        """
        if self.identity is None:
            return source_at(self.where).read(self.name, limit)
        source = container_at(self.where, self.identity)
        data = source.read(self.name, limit)
        if source.identity != self.identity or not source.is_same_at(self.name):
            raise changed(self.where)
        return data

    def peek(self, limit: int) -> bytes:
        """Return the bytes, which `read` will be asked for too; raises as it does."""
        return self.read(limit)

    def state(self) -> tuple[int, int] | None:
        """Return the size and version, see `state_of_image`.

        Raises:
            ImagesGone, DatasetError, UnreadableFile: the container can't be read, so nothing is known of the image.
        """
        try:
            entry = container_at(self.where, self.identity).stat(self.name)
        except (Missing, Damaged):
            return None
        return entry.n_bytes or 0, entry.version or 0


@dataclass(frozen=True)
class ImageContainer:
    """The container as it was when a run began. It is sent to workers with every task; see `ImageFolder`.

    Attributes:
        path: its address.
        identity: of its files, by their sizes and times.
    """

    path: str
    identity: str

    def file(self, name: str) -> Member:
        """Return an image."""
        return Member(self.path, name, self.identity)

    def was_read(self, name: str, n_bytes: int) -> None:
        """Do nothing: the files tell whether they are the same."""

    def refuse_if_gone(self, name: str, reason: str) -> None:
        """Refuse to count an image as missing if the container is another one, or gone.

        Raises:
            ImagesGone: it is.
        """
        source = container_at(self.path)
        if source.identity != self.identity or not source.is_same():
            raise changed(self.path)


def open_container(source: Container, *, read: Iterable[str], wanted: Iterable[str]) -> ImageContainer:
    """Check the images at the beginning of a run, as `open_folder` does.

    Raises:
        ImagesGone: none of these names is there.
        DatasetError, UnreadableFile: the container can't be read.
    """
    before = list(read)
    looked = [*before, *wanted]
    if looked and all(Member(source.where, name).state() is None for name in looked):
        why = ", though some were read from it before" if before else f" by any of {counted(len(looked), 'name')}"
        raise ImagesGone(
            f"the images are gone: there are none in {source.where}{why}. Nothing is recorded; put it back, or "
            "correct `images` in featurestore.toml, and run the same command again"
        )
    return ImageContainer(source.where, source.identity)


def changed(where: str) -> ImagesGone:
    """Return the error for a container that is another one than when the run began."""
    return ImagesGone(f"the images in {where} have changed since the run began. {AGAIN}")
