"""The images of a run, whichever source they come from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from featurestore.images.image_container import ImageContainer, Member, open_container
from featurestore.images.image_folder import ImageFolder, open_folder
from featurestore.images.image_object import RemoteImage, RemoteImages, open_objects
from featurestore.images.sources.address import is_container
from featurestore.images.sources.base import Source
from featurestore.images.sources.container import Container
from featurestore.images.sources.object_store import Objects
from featurestore.system import is_remote

RunImages = ImageFolder | ImageContainer | RemoteImages
ImagePath = str | Member  # a path, or an image in a container or an object store


def image_at(where: str, name: str) -> ImagePath:
    """Return what `read_image` reads: a path in the folder ``where``, or an image in a container or an object store."""
    if is_remote(where):
        return RemoteImage(where, name)
    return Member(where, name) if is_container(where) else str(Path(where, name))


def state_of_image(image: ImagePath) -> tuple[int, int] | None:
    """Return the bytes and the version of an image, by which a replaced one is recognised; None if there is none.

    The version of a file is the time of its last change in nanoseconds; that of another image see `Entry`.

    Raises:
        ImagesGone, UnreadableFile, DatasetError: the container or object store can't be read.
    """
    if isinstance(image, Member):
        return image.state()
    try:
        found = Path(image).stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def open_images(source: Source, *, read: Iterable[str], wanted: Iterable[str]) -> RunImages:
    """Check the images at the beginning of a run, as `open_folder` does.

    Raises:
        ImagesGone: none of these names is there, or the object store failed.
        DatasetError, UnreadableFile: the container can't be read.
    """
    if isinstance(source, Objects):
        return open_objects(source, read=read, wanted=wanted)
    if isinstance(source, Container):
        return open_container(source, read=read, wanted=wanted)
    return open_folder(Path(source.where), read=read, wanted=wanted)
