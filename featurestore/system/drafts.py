"""A file or folder appears all at once or not at all: it is written under a temporary name, flushed, and renamed."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featurestore.errors import NotWritable, OutputError
from featurestore.system.access import make_folder, writing
from featurestore.system.child_processes import left_by_dead, owner_mark
from featurestore.system.disk import flush, room_on_disk, short_name, temporary_name

_IN_WORK: set[str] = set()  # the names of owned drafts of this process, of all its threads


@contextmanager
def draft(target: Path, what: str, *, owned: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; a failure removes it, and a success leaves it.

    Args:
        target: where the finished file or folder will be. Its folder is made if there is none.
        what: it is called in an error.
        owned: name the process in the draft, so that the next draft of ``target`` removes it if this process is killed.
            Where a store sweeps its folder, nothing else has to.

    Raises:
        NotEnoughSpace: the disk is full, a quota or a file-size limit was met.
        NotWritable: this user may not write the folder.
    """
    path = target.with_name(temporary_name(target.name, owner_mark() if owned else ""))
    _IN_WORK.add(path.name)
    try:
        with room_on_disk(what):
            make_folder(target.parent)
            if owned:
                _remove_dead(target)
            yield path
    except BaseException:
        _remove(path)
        raise
    finally:
        _IN_WORK.discard(path.name)


@contextmanager
def replacing(target: Path, what: str | None = None, *, owned: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it becomes ``target``, else it is removed.

    Arguments and errors are those of `draft`.
    """
    with draft(target, what or target.name, owned=owned) as path:
        yield path
        for member in path.iterdir() if path.is_dir() else ():
            flush(member)
        flush(path)
        put_in_place(path, target)


@contextmanager
def output_at(out: Path, what: str | None = None) -> Iterator[Path]:
    """Yield where to write what a user wants at ``out``, and remove what killed processes left of it; see `replacing`.

    Raises:
        OutputError: it can't be written there.
        NotEnoughSpace: the disk is full, a quota or a file-size limit was met.
    """
    path = out
    try:
        with replacing(out, what, owned=True) as path:
            yield path
    except NotWritable as error:
        raise OutputError(f"{out} can't be written: {os.strerror(errno.EACCES)}; choose another place") from error
    except OSError as error:
        about = Path(error.filename or out)
        if error.errno is None or (about not in (out, out.parent) and not about.is_relative_to(path)):
            raise  # about a file that is read, or what Arrow found in it
        raise unwritten(out, error) from error


def unwritten(out: Path, error: OSError) -> OutputError:
    """Return the error for what a user wants at ``out``, with the system's reason."""
    if isinstance(error, PermissionError):
        return OutputError(f"{out} can't be written: {os.strerror(errno.EACCES)}; choose another place")
    return OutputError(f"{out} can't be written: {error.strerror}; check the disk, or choose another place")


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


def _remove_dead(target: Path) -> None:
    """Remove owned drafts of ``target`` whose processes have died."""
    dead = left_by_dead(target.parent, r"\.tmp-[0-9a-f]{12}-", re.escape(short_name(target.name)), in_work=_IN_WORK)
    for path in dead:
        with suppress(OSError):  # it is another user's: it stays
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
