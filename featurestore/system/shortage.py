"""Exceptions as the error text of an image's row, told apart from a temporary shortage of memory, files or threads."""

from __future__ import annotations

import errno
import os
import re

from featurestore.system.access import THREADS, reason_unreadable

LENGTH = 300  # characters of a line
MEMORY = os.strerror(errno.ENOMEM)
_LACKING = {MEMORY, os.strerror(errno.EMFILE), os.strerror(errno.ENFILE), *THREADS}

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
_FOLDERS = re.compile(r"(?<![\w./])/(?:[^/\s'\"]+/)+")


def lacking(error: BaseException) -> str | None:
    """Return the resource that ran out (memory, open files, threads), None if the error has another cause.

    A shortage says nothing about the image: it may succeed when it is tried alone.
    """
    reason = reason_unreadable(error)
    return reason if reason in _LACKING else None


def line_of(error: BaseException) -> str:
    """Return an exception's class and message as one line, without addresses and folders: the same in every run."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    words = _FOLDERS.sub("", _ADDRESS.sub("0x...", str(error)))
    words = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    line = f"{name}: {words}" if words else name
    return line if len(line) <= LENGTH else line[: LENGTH - 3] + "..."
