"""File access: errors of the attempt to read or write a file, as opposed to damage in the file.

A missing permission, a failing disk, too many open files and too little memory say nothing about a file's content.
Here they become `UnreadableFile`, whichever library raises them, so that an unreadable file never counts as damaged.
A file that this user may not write becomes `NotWritable`, which names the owner.

Do not use Python's ``is_file``, ``exists`` and ``rglob`` where the absence of a file has a consequence: they report a
file as absent if its folder can't be searched.
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
from featurestore.system.object_store import is_remote

ABSENT = (FileNotFoundError, NotADirectoryError)
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Codes of a missing file, and of a wrong offset in a damaged one. All other codes are about the attempt.
_OTHER = NO_ROOM | {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ESPIPE, errno.EOVERFLOW}
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MEMORY = ("std::bad_alloc", "Out of Memory Error", "MemoryError", "Insufficient memory")  # C++, DuckDB, Python, OpenCV
_UNMAPPED = "failed to map segment from shared object"  # the loader, without a reason where memory is lacking
THREADS = ("can't start new thread", os.strerror(errno.EAGAIN))
# Some libraries keep only the operating system's message.
_WORDS = tuple(
    map(
        os.strerror,
        (
            *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
            *(errno.EISDIR, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.ELOOP),
            errno.EROFS,
        ),
    )
)
REFUSALS = frozenset(map(os.strerror, _REFUSED))  # messages of a missing permission to write
_ADVICE = {
    os.strerror(errno.EACCES): "let this user read it",
    os.strerror(errno.EPERM): "let this user read it",
    os.strerror(errno.EMFILE): "raise the limit of open files (ulimit -n)",
    os.strerror(errno.ENFILE): "have other programs close files",
    os.strerror(errno.ENOMEM): "give this process more memory",
    **dict.fromkeys(THREADS, "raise the limit of processes (ulimit -u)"),
}

_OF_OBJECTS = "check the network, the credentials, the endpoint and the bucket"


def reason_unreadable(error: BaseException) -> str | None:
    """Return why a file could not be read, or None if the error is about its content.

    The error's causes count too: `zipfile` calls every file that it can't read "not a zip file".
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
    lacking = os.strerror(errno.ENOMEM) if text.endswith(_UNMAPPED) else None
    return next((word for word in (*_WORDS, *THREADS) if word in text), lacking)


def advice_for(reason: str) -> str:
    """Return what to do about a reason of `reason_unreadable`."""
    return _ADVICE.get(reason, "check the disk, the network or the machine")


def unreadable(path: str | os.PathLike[str], reason: str) -> UnreadableFile:
    """Return the error for a file or an object that can't be read, with its reason."""
    advice = _OF_OBJECTS if is_remote(str(path)) else advice_for(reason)
    error = UnreadableFile(
        f"{path} can't be read: {reason}; nothing is known to be wrong with it. Do not delete it: {advice}, then run "
        "the same command again"
    )
    error.path, error.reason = str(path), reason
    return error


@contextmanager
def readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn failures to read ``path`` into `UnreadableFile`; errors about its content pass unchanged.

    Raises:
        UnreadableFile: the file could not be read, for a reason that says nothing about its content.
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
    """Return the status of a file or folder, None if it does not exist.

    Raises:
        UnreadableFile: the system does not say whether it exists.
    """
    try:
        with readable(path):
            return path.stat()
    except (*ABSENT, ValueError):  # the latter: no file can have a name with a NUL or half a surrogate pair
        return None


def is_file(path: Path) -> bool:
    """Return whether ``path`` is a file.

    Raises:
        UnreadableFile: the system does not say.
    """
    found = status_of(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def why_no_file(name: str) -> str:
    """Return in words why a name that a user gave is no file.

    It does not exist, is a link to a file that does not exist, a folder, or a pipe or a device.

    Raises:
        UnreadableFile: the system does not say.
    """
    found = status_of(Path(name))
    if found is None and Path(name).is_symlink():
        return f"{name!r} is a link to a file that does not exist"
    if found is None or not name:  # Path("") is the current folder
        return f"there is no file {name!r} here"
    return f"{name!r} is a folder" if stat.S_ISDIR(found.st_mode) else f"{name!r} is a pipe or a device and not a file"


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder.

    Raises:
        UnreadableFile: the system does not say.
    """
    found = status_of(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def files_below(folder: Path) -> tuple[list[Path], list[UnreadableFile]]:
    """Return all files below ``folder``, and an error for each folder that can't be listed.

    A missing folder has no files. Links to folders are not followed.
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
    """Make a writable folder and its parents, if they do not exist.

    Raises:
        NotWritable: this user may not make the folder, or not write to it.
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
    """Return whether the operating system refused permission."""
    return error.errno in _REFUSED


def not_writable(path: Path) -> NotWritable:
    """Return the error that names the owner of ``path``, or of its nearest existing folder, and what to do."""
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
