"""Paths from users: made absolute, or refused in one line if the system or DuckDB can't open them."""

from __future__ import annotations

import errno
import os
import shlex
from glob import glob
from pathlib import Path

from featurestore.errors import OutputError, UnusablePath
from featurestore.system.access import is_folder

StrPath = str | os.PathLike[str]

_NEVER = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ})  # wherever the file would be
_LONGEST = 4095 - 255  # bytes of a store's path, so that the paths of its files stay below the system's 4096


def located(path: StrPath, what: str) -> Path:
    """Return the absolute path, with ``~`` and links resolved; it need not exist.

    Args:
        path: as the user wrote it.
        what: the thing at this path, like "the store".

    Raises:
        UnusablePath: no file can have such a path.
    """
    try:
        found = Path(path).expanduser().resolve()
        found.lstat()
    except RuntimeError as error:  # of pathlib: no home, or before Python 3.13 a link that leads back to itself
        raise _unusable(path, what, str(error).rstrip(".")) from error
    except ValueError as error:
        raise _unusable(path, what, "it contains a NUL character") from error
    except OSError as error:
        if error.errno in _NEVER:
            raise _unusable(path, what, os.strerror(error.errno or 0)) from error
        given = Path(path).expanduser()
        if error.errno == errno.ENOENT and given.exists():  # a pipe, as /dev/stdout may be: it has no path of its own
            return given.absolute()
        if not Path(path).is_absolute() and not _has_current_folder():
            raise _unusable(path, what, "the current folder is gone") from error
    return found


def matching(pattern: Path) -> list[Path]:
    """Return the paths that match an absolute pattern; a folder that has the name as it is written is no pattern.

    Raises:
        UnreadableFile: the system does not say whether such a folder exists.
    """
    above = next(folder for folder in pattern.parents if is_folder(folder))
    return [above / found for found in glob(str(pattern.relative_to(above)), root_dir=above)]  # noqa: PTH207


def store_folder(path: StrPath) -> Path:
    """Return the absolute path of a store's folder, which need not exist.

    DuckDB accepts only UTF-8 paths, reads a backslash as ``/``, and ends a path at a question mark.

    Raises:
        UnusablePath: no file can have such a path, or DuckDB would open another one.
    """
    found = located(path, "the store")
    reason = duckdb_objection(found)
    if reason is None and len(os.fsencode(found)) > _LONGEST:
        reason = f"it is longer than {_LONGEST:,} bytes, and the files in it could not be opened"
    if reason is not None:
        raise _unusable(found, "a store", reason)
    return found


def duckdb_objection(path: Path) -> str | None:
    """Return why DuckDB would not open a database at just this path, None if it would."""
    text = str(path)
    for character, name in (("?", "a question mark"), ("\\", "a backslash")):
        if character in text:
            return f"it contains {name}, and DuckDB would open another file"
    return None if is_text(path) else "it is not UTF-8, and DuckDB takes no other"


def is_text(path: StrPath) -> bool:
    """Return whether a path is UTF-8, so that a text file can name it."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_output(out: Path, store: Path | None, *, force: bool, folder: bool = False) -> None:
    """Refuse an output path that would damage existing files.

    Args:
        out: the absolute path.
        store: the folder of the store that the output is made from, if any.
        force: replace an existing file.
        folder: the output may be a folder, which its caller then checks.

    Raises:
        OutputError: it lies in the store, in no folder, exists and ``force`` was not given, or is a folder, a pipe or a
            device, which a file would replace.
    """
    if store is not None and out.is_relative_to(store):
        raise OutputError(f"{out} lies in the store, which manages its own files; choose another place")
    if not out.parent.is_dir():
        raise OutputError(f"{out} can't be written: {out.parent} is not a folder; make it, or choose another place")
    if os.path.lexists(out) and out.exists() and not (out.is_file() or out.is_dir()):
        raise OutputError(f"{out} is a pipe or a device and not a file; choose another name")
    if out.is_dir() and not folder:
        raise OutputError(f"{out} is a folder and not a file; choose another name")
    if os.path.lexists(out) and not force:
        raise OutputError(f"{out} exists already; choose another name, or replace it with --force (force=True)")


def shown(path: StrPath) -> str:
    """Return a path for a message, with invalid UTF-8 and control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in os.fspath(path))


def typed(path: StrPath) -> str:
    """Return a path for a shell, quoted if necessary."""
    return shlex.quote(os.fspath(path))


def command_line(verb: str, store: StrPath, *rest: str) -> str:
    """Return a ``featurestore`` command line to paste into a shell; ``rest`` is quoted already."""
    return " ".join(["featurestore", verb, typed(store), *rest])


def _unusable(path: StrPath, what: str, reason: str) -> UnusablePath:
    return UnusablePath(f"{shown(path)} can't be the path of {what}: {reason}; choose another, or rename the folder")


def _has_current_folder() -> bool:
    try:
        return bool(os.getcwd())  # noqa: PTH109 - as a question
    except OSError:
        return False
