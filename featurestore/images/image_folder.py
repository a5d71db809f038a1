"""The image folder during a run: is one file missing, or is the whole folder gone?

If a disk is unmounted, its folder is empty or absent, and every file seems to be missing. So before a file counts as
missing, files that were read earlier are checked again.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from featurestore.errors import ImagesGone
from featurestore.formatting import counted
from featurestore.system import lacking

File = tuple[str, int]  # its name below the folder, and its bytes
WITNESSES = 8  # files of each subfolder that are checked again: so many do not vanish together for other reasons
REMEMBERED = 4096  # subfolders


@dataclass(frozen=True)
class ImageFolder:
    """The image folder as it was when a run began. It is sent to workers with every task.

    Attributes:
        path: the folder.
        identity: its device and inode; None if there was no such folder.
        witnesses: files that were there.
        run: differs from run to run.
    """

    path: str
    identity: tuple[int, int] | None
    witnesses: tuple[File, ...]
    run: str

    def file(self, name: str) -> str:
        """Return the path of an image."""
        return str(Path(self.path, name))

    def was_read(self, name: str, n_bytes: int) -> None:
        """Remember a readable file, for each folder above it."""
        lately = _read_lately(self)
        for above in _above(name):
            lately.setdefault(above, deque(maxlen=WITNESSES)).append((name, n_bytes))
            lately.move_to_end(above)
        while len(lately) > REMEMBERED:
            lately.popitem(last=False)

    def refuse_if_gone(self, name: str, reason: str) -> None:
        """Refuse to count a file as missing if the whole folder is gone.

        Args:
            name: of the file.
            reason: why it can't be read.

        Raises:
            ImagesGone: no file of this folder that was read earlier can be read now.
        """
        lately = _read_lately(self)
        for above in _above(name):
            known = [*lately.get(above, ()), *(self.witnesses if above == "" else ())]
            if not any(self._still_opens(file) for file in known) and (known or self._is_another(above)):
                raise ImagesGone(
                    f"the folder of images is gone: nothing in {self.file(above)} can be read any more, the last time "
                    f"{name} ({reason}). Nothing of this is recorded; put it back and run the same command again"
                )

    def _is_another(self, above: str) -> bool:
        return above == "" and _identity(self.path) != self.identity

    def _still_opens(self, file: File) -> bool:
        name, n_bytes = file
        try:
            with Path(self.path, name).open("rb", buffering=0) as stream:
                return os.fstat(stream.fileno()).st_size == n_bytes and bool(stream.read(1)) == bool(n_bytes)
        except OSError as error:
            if lacking(error):
                raise
            return False


@lru_cache(maxsize=1)  # a worker serves one run at a time
def _read_lately(folder: ImageFolder) -> OrderedDict[str, deque[File]]:
    return OrderedDict()


def _above(name: str) -> Iterator[str]:
    """Yield the folders above a file, starting with the image folder itself, ``""``."""
    yield ""
    for folder in reversed(PurePosixPath(name).parents[:-1]):
        yield str(folder)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_folder(path: Path, *, read: Iterable[str], wanted: Iterable[str]) -> ImageFolder:
    """Check the image folder at the beginning of a run.

    Args:
        path: the folder.
        read: names of some images that were read in earlier runs.
        wanted: names of some images that this run will read.

    Raises:
        ImagesGone: none of them exists.
    """
    before, found = list(read), list[File]()
    looked, n_absent = [*before, *wanted], 0
    for name in looked:
        try:
            state = Path(path, name).stat()
        except (OSError, ValueError):  # ValueError: characters that no file name can have
            n_absent += 1
            continue
        if stat.S_ISREG(state.st_mode):
            found.append((name, state.st_size))
        if len(found) == WITNESSES:
            break
    if looked and n_absent == len(looked):
        why = ", though some were read from it before" if before else f" by any of {counted(len(looked), 'name')}"
        raise ImagesGone(
            f"the folder of images is gone: there are no images in {path}{why}. Nothing is recorded; put it back, or "
            "correct `images` in featurestore.toml, and run the same command again"
        )
    return ImageFolder(str(path), _identity(str(path)), tuple(found), uuid.uuid4().hex)
