"""What keeps a file from being read, told apart from what is wrong with the file.

A permission, a failing disk, too many open files or too little memory say nothing of what a file holds. Here they
become `UnreadableFile`, whichever library raises them; a file that can't be read is never taken for a damaged one.

Python's own ``is_file``, ``exists`` and ``rglob`` have no place where a file's absence has a consequence: they take
"not permitted" for "not there". What may not be written is told here too: `NotWritable` says whose it is.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import FeatureStoreError, NotWritable, UnreadableFile

ABSENT = (FileNotFoundError, NotADirectoryError)
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What a missing file says, and what a wrong offset in a damaged one leads to. All other codes are about the attempt.
_OTHER = NO_ROOM | {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ESPIPE, errno.EOVERFLOW}
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MEMORY = ("std::bad_alloc", "Out of Memory Error", "MemoryError", "Insufficient memory")  # C++, DuckDB, Python, OpenCV
THREADS = ("can't start new thread", os.strerror(errno.EAGAIN))
# Some libraries keep the words of the operating system only.
_WORDS = tuple(
    map(
        os.strerror,
        (
            *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
            *(errno.EISDIR, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.ELOOP),
        ),
    )
)
_ADVICE = {
    os.strerror(errno.EACCES): "let this user read it",
    os.strerror(errno.EPERM): "let this user read it",
    os.strerror(errno.EMFILE): "raise the limit of open files (ulimit -n)",
    os.strerror(errno.ENFILE): "have other programs close files",
    os.strerror(errno.ENOMEM): "give this process more memory",
    **dict.fromkeys(THREADS, "raise the limit of processes (ulimit -u)"),
}


def reason_unreadable(error: BaseException) -> str | None:
    """Return what kept a file from being read, or None if the error is about the file itself.

    What the error was raised from counts too: `zipfile` calls every file "not a zip file" that it can't read.
    """
    link: BaseException | None = error
    while link is not None:
        found = _reason(link)
        if found is not None:
            return found
        link = link.__cause__ or link.__context__
    return None


def _reason(error: BaseException) -> str | None:
    if isinstance(error, UnreadableFile):
        return error.reason or str(error)
    if isinstance(error, MemoryError):
        return os.strerror(errno.ENOMEM)
    if isinstance(error, OSError) and error.errno is not None:
        return None if error.errno in _OTHER else os.strerror(error.errno)
    text = str(error).partition("\n")[0]
    if any(word in text for word in _MEMORY):
        return os.strerror(errno.ENOMEM)
    return next((word for word in (*_WORDS, *THREADS) if word in text), None)


def advice_for(reason: str) -> str:
    """Return what to do about what `reason_unreadable` says."""
    return _ADVICE.get(reason, "see to the disk, the network or the machine")


def unreadable(path: Path, reason: str) -> UnreadableFile:
    """Return the error that says that ``path`` can't be read, for ``reason``."""
    error = UnreadableFile(
        f"{path} can't be read: {reason}; nothing is known to be wrong with it. Do not delete it: {advice_for(reason)}"
        ", then run the same command again"
    )
    error.reason = reason
    return error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Let what is wrong with a file through, and turn whatever else keeps it from being read into one clear error.

    Raises:
        UnreadableFile: the file could not be read, for a reason that says nothing of its content.
    """
    try:
        yield
    except FeatureStoreError:
        raise
    except Exception as error:
        reason = reason_unreadable(error)
        if reason is None:
            raise
        raise unreadable(path, reason) from error


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of a file or folder, None where there is none.

    Raises:
        UnreadableFile: there is no telling.
    """
    try:
        with readable(path):
            return path.stat()
    except ABSENT:
        return None


def is_file(path: Path) -> bool:
    """Return whether ``path`` is a file.

    Raises:
        UnreadableFile: there is no telling.
    """
    found = status_of(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder.

    Raises:
        UnreadableFile: there is no telling.
    """
    found = status_of(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def files_below(folder: Path) -> tuple[list[Path], list[UnreadableFile]]:
    """Return everything below ``folder`` that is no folder itself, and an error for each folder that can't be listed.

    A folder that is not there holds nothing. Links to folders are not followed.
    """
    found: list[Path] = []
    failed: list[UnreadableFile] = []
    folders = [folder]
    while folders:
        path = folders.pop()
        try:
            with readable(path), os.scandir(path) as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=False) else found).append(Path(entry.path))
        except ABSENT:
            continue
        except UnreadableFile as error:
            failed.append(error)
    return found, failed


def make_folder(path: Path) -> None:
    """Make a folder that files can be written to, with those above it; one that exists is fine.

    Raises:
        NotWritable: this user may not, or may not write to the folder.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    if not may_write(path):
        raise not_writable(path)


def may_write(path: Path) -> bool:
    """Return whether this user may change a file, or make files in a folder."""
    return os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn "permission denied" and "read-only file system" into one clear error about ``path``."""
    try:
        yield
    except OSError as error:
        if not is_refusal(error):
            raise
        raise not_writable(path) from error


def is_refusal(error: OSError) -> bool:
    """Return whether the operating system did not permit it, rather than failed."""
    return error.errno in _REFUSED


def not_writable(path: Path) -> NotWritable:
    """Return the error that says whose ``path`` is, or the folder that it would be in, and what can be done."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return NotWritable(f"{there} is on a disk that is mounted read-only; mount it for writing, or work on a copy")
    return NotWritable(
        f"{there} belongs to {_user(there.stat().st_uid)} and can't be written by {_user(os.geteuid())}; work on a "
        "copy or in another folder, or have its owner let a group write it: chgrp -R GROUP STORE; "
        "chmod -R g+rwX STORE; find STORE -type d -exec chmod g+s {} +; and umask 002 for all who work in it"
    )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # as in containers
        return f"user {number}"
