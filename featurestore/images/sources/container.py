"""Containers as a source: one file that holds many images, or several such files.

Every process opens the files itself, when it first reads from them. A name begins with the stem of the file where there
are several. Each file is opened by an `Archive`, one class for each format.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from featurestore.errors import DatasetError, ImagesGone
from featurestore.images.locate import IMAGE_SUFFIXES
from featurestore.images.sources.base import Entry, Missing, Source, no_file
from featurestore.system import ABSENT, StrPath, changed_ns, readable

MOST_OPEN = 32  # files at a time
AGAIN = "Nothing of this is recorded; put it back and run the same command again"


class FileState(NamedTuple):
    """The size and the time of the last change of a file, by which another file is recognised."""

    n_bytes: int
    mtime_ns: int


class Archive(ABC):
    """One open file that holds images. Their names are normal: see `plain`."""

    def __init__(self, path: Path, state: FileState) -> None:
        """Open the file.

        Raises:
            DatasetError: it is not of this format, or its directory is damaged.
            OSError: it can't be read.
        """
        self.path, self.state = path, state

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield the images in the order of the file.

        Raises:
            DatasetError: part of the file can't be listed.
        """

    @abstractmethod
    def stat(self, name: str) -> Entry:
        """Return what the directory says of an image; raises as `Source.stat` does."""

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of an image; raises as `Source.read` does."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class Place:
    """The files of a container: their paths by stem, and how names begin.

    Attributes:
        archive: the class that opens each file.
        files: by what the names of their images begin with; ``""`` for one file whose names have no stem.
        prefix: the folder in each file whose images are meant, ``""`` for all of it.
    """

    archive: type[Archive]
    files: Mapping[str, Path]
    prefix: str


class Container(Source):
    """The images in one file or several."""

    def __init__(self, where: str, place: Place) -> None:
        """Take the files; none is opened yet.

        Raises:
            ImagesGone: one of them is not there.
            DatasetError: one of them is no file.
            UnreadableFile: the system does not say whether it is.
        """
        self.where, self._place = where, place
        self._turn = threading.Lock()
        self._open = OrderedDict[str, Archive]()
        self._states = {stem: state_of(path) for stem, path in place.files.items()}
        self.identity = _digest(self._states)

    @property
    def takes_prefix(self) -> bool:
        """Whether a folder in the file can be added to its address."""
        return "" in self._place.files and not self._place.prefix

    @property
    def archive(self) -> type[Archive]:
        """The class that opens the files."""
        return self._place.archive

    @property
    def files(self) -> Mapping[str, Path]:
        """The files, by what the names of their images begin with."""
        return self._place.files

    def is_same(self) -> bool:
        """Return whether every file is the one that was there when this source was opened.

        Raises:
            ImagesGone: one of them is not there.
        """
        return all(state_of(self._place.files[stem]) == state for stem, state in self._states.items())

    def is_same_at(self, name: str) -> bool:
        """Return whether the file of one image is the one that was there when this source was opened."""
        stem = self._split(name)[0]
        return state_of(self._place.files[stem]) == self._states[stem]

    def entries(self) -> Iterator[Entry]:
        """Yield the images, file after file, in the order of each."""
        below = f"{self._place.prefix}/" if self._place.prefix else ""
        for stem in self._place.files:
            with self._turn:
                found = list(self._archive(stem).entries())
            start = f"{stem}/" if stem else ""
            for entry in found:
                if entry.name.startswith(below):
                    yield entry._replace(name=start + entry.name[len(below) :])

    def stat(self, name: str) -> Entry:
        """Return what the file's directory says of an image."""
        stem, inside = self._split(name)
        with self._turn:
            return self._archive(stem).stat(inside)._replace(name=name)

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of an image."""
        stem, inside = self._split(name)
        with self._turn:
            return self._archive(stem).read(inside, limit)

    def close(self) -> None:
        """Close all files."""
        with self._turn:
            while self._open:
                self._open.popitem()[1].close()

    def _split(self, name: str) -> tuple[str, str]:
        """Return the stem of an image's file, and its name there."""
        stem, inside = "", name
        if "" not in self._place.files:
            stem, _, inside = name.partition("/")
            if stem not in self._place.files:
                raise Missing(f"no file of {self.where} is called {stem!r}, as its name begins")
        return stem, f"{self._place.prefix}/{inside}" if self._place.prefix else inside

    def _archive(self, stem: str) -> Archive:
        if stem not in self._open:
            path = self._place.files[stem]
            try:
                with readable(path):
                    self._open[stem] = self._place.archive(path, self._states[stem])
            except ABSENT:
                raise gone(path) from None
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(stem)
        return self._open[stem]


def state_of(path: Path) -> FileState:
    """Return the state of a file.

    Raises:
        ImagesGone: it is not there.
        DatasetError: it is no file.
        UnreadableFile: the system does not say.
    """
    try:
        with readable(path):
            found = path.stat()
    except ABSENT:
        raise gone(path) from None
    if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait for its writer
        raise DatasetError(f"{path} is {no_file(found.st_mode)}, so no image can be read from it; give --images a file")
    return FileState(found.st_size, changed_ns(found))


def gone(path: Path) -> ImagesGone:
    """Return the error for a file of images that is not there."""
    return ImagesGone(f"the images are gone: there is no file {path}. {AGAIN}")


def plain(name: str) -> str | None:
    """Return the name of a member as a relative path without ``.`` and ``..``, None if nothing is left of it.

    A member's name never reaches the file system; but a name in a store must not lead out of a folder of images either.
    """
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or None


def is_image(name: str) -> bool:
    """Return whether a member is an image by its extension, and neither hidden nor in the folder that macOS adds."""
    parts = name.split("/")
    return name.lower().endswith(IMAGE_SUFFIXES) and not any(p.startswith(".") or p == "__MACOSX" for p in parts)


def compressed(path: StrPath) -> DatasetError:
    """Return the error for an archive that is compressed as a whole."""
    return DatasetError(
        f"{os.fspath(path)} is compressed as a whole, so one image can't be read without all before it; unpack it to a "
        "tar or a folder, and give that to --images"
    )


def by_stem(paths: list[Path], where: str) -> dict[str, Path]:
    """Return files by their stems, sorted.

    Raises:
        DatasetError: two have the same.
    """
    found: dict[str, Path] = {}
    for path in sorted(paths):
        if path.stem in found:
            raise DatasetError(
                f"{found[path.stem]} and {path} have the same name, with which those of their images begin; rename "
                f"one, or give another pattern than {where}"
            )
        found[path.stem] = path
    return found


def _digest(states: Mapping[str, FileState]) -> str:
    text = "\n".join(f"{stem}\t{state.n_bytes}\t{state.mtime_ns}" for stem, state in sorted(states.items()))
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
