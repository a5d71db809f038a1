"""A file or folder appears all at once or not at all: it is written under a temporary name, flushed, and renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import NotWritable, OutputError
from featurestore.system.access import make_folder, writing
from featurestore.system.disk import flush, room_on_disk, temporary_name


@contextmanager
def draft(target: Path, what: str, *, owner: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; a failure removes it, and a success leaves it.

    Args:
        target: where the finished file or folder will be. Its folder is made if there is none.
        what: it is called in an error.
        owner: a pid, for a draft that is its process's alone: see `temporary_name`.

    Raises:
        NotEnoughSpace: the disk is full, a quota or a file-size limit was met.
        NotWritable: this user may not write the folder.
    """
    path = target.with_name(temporary_name(target.name, owner))
    try:
        with room_on_disk(what):
            make_folder(target.parent)
            yield path
    except BaseException:
        _remove(path)
        raise


@contextmanager
def replacing(target: Path, what: str | None = None, *, owner: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it becomes ``target``, else it is removed.

    Arguments and errors are those of `draft`.
    """
    with draft(target, what or target.name, owner=owner) as path:
        yield path
        for member in path.iterdir() if path.is_dir() else ():
            flush(member)
        flush(path)
        put_in_place(path, target)


@contextmanager
def output_at(out: Path, what: str | None = None) -> Iterator[Path]:
    """Yield where to write what a user wants at ``out``; see `replacing`.

    Raises:
        OutputError: this user may not write there.
        NotEnoughSpace: the disk is full, a quota or a file-size limit was met.
    """
    try:
        with replacing(out, what) as path:
            yield path
    except (PermissionError, NotWritable) as error:
        raise OutputError(f"{out} can't be written: {os.strerror(errno.EACCES)}; choose another place") from error


def put_in_place(path: Path, target: Path) -> None:
    """Give a file or folder that is flushed its final name, and have the name on the disk too."""
    with writing(target):
        if path.is_dir() and target.is_dir() and any(target.iterdir()):
            # A folder that holds something can't be replaced in one step: for a moment there is none.
            old = target.with_name(temporary_name(target.name))
            target.replace(old)
            path.replace(target)
            _remove(old)
        else:
            path.replace(target)
    flush(target.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
