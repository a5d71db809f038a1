"""A folder as a source: every image is a file below it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

from featurestore.errors import DatasetError
from featurestore.images.locate import IMAGE_SUFFIXES, leads_to_folder, why_missing
from featurestore.images.sources.base import Damaged, Entry, Missing, ReadFailed, Source, TooLarge, no_file
from featurestore.rows import Status
from featurestore.system import lacking, status_of

# Errors of the file itself: a second attempt fails in the same way. All other errors are of the machine.
OWN = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL})
NO_SUCH_NAME = "the file name holds a character that no file name can hold"


class Folder(Source):
    """The image files below a folder; the names are relative paths."""

    keeps_versions = False  # the times of its files

    def __init__(self, where: str) -> None:
        """Take the path; it need not exist."""
        self.where = where

    def file(self, name: str) -> str:
        """Return the path of an image."""
        return str(Path(self.where, name))

    def entries(self) -> Iterator[Entry]:
        """Yield the image files, sorted by name. Hidden ones are skipped, and no folder is entered twice."""
        folder = Path(self.where)
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise DatasetError(f"The image folder {folder} {what}. Give the folder that the images are in.")
        try:
            names = sorted(_images_below(folder))
        except OSError as error:
            raise DatasetError(f"Can't list {error.filename}: {error.strerror}. Make it readable or move it.") from None
        yield from map(Entry, names)

    def stat(self, name: str) -> Entry:
        """Return the size of a file and the time of its last change, in nanoseconds."""
        try:
            found = status_of(Path(self.where, name))
        except ValueError:  # NUL, or a character that the file system can't spell
            found = None
        if found is None:
            raise Missing("the file does not exist")
        if not stat.S_ISREG(found.st_mode):
            raise Damaged(no_file(found.st_mode), Status.UNREADABLE)
        return Entry(name, found.st_size, found.st_mtime_ns)

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of a file."""
        return read_file(self.file(name), limit)


def read_file(path: str, limit: int) -> bytes:
    """Return the content of a file of at most ``limit`` bytes; raises as `Source.read` does."""
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait for its writer
            raise Damaged(no_file(found.st_mode), Status.UNREADABLE)
        with Path(path).open("rb") as stream:
            if found.st_size > limit:
                raise TooLarge(found.st_size)
            return stream.read(found.st_size + 1)  # one byte more, for special files whose size is 0
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(why_missing(Path(path))) from None
    except OSError as error:
        if error.errno in OWN:
            raise Damaged(f"the file can't be read ({error.strerror})", Status.UNREADABLE) from error
        if lacking(error):
            raise
        raise ReadFailed(error.strerror) from error
    except ValueError:  # NUL, or a character that the file system can't spell
        raise Missing(NO_SUCH_NAME) from None


def _images_below(folder: Path) -> Iterator[str]:
    """Yield relative paths; real folders come before links, so that an image gets its real path if it has one."""
    # A link to a folder above would add what lies beside the image folder, and then the image folder a second time.
    seen = {(above.stat().st_dev, above.stat().st_ino) for above in folder.resolve().parents}
    real, links = [""], list[str]()
    while real or links:
        here = real.pop() if real else links.pop(0)
        stat = (folder / here).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        with os.scandir(folder / here) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
        for entry in entries:
            name = posixpath.join(here, entry.name)
            if leads_to_folder(entry):
                (links if entry.is_symlink() else real).append(name)
            elif name.lower().endswith(IMAGE_SUFFIXES) and (entry.is_symlink() or entry.is_file()):
                yield name  # even a dangling or circular link: extract reports it
