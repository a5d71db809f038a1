"""The run lock: one process at a time changes a store, and whoever is turned away is told who holds it.

The operating system drops the lock when its holder dies, so a dead process never keeps a store busy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from featurestore.errors import NotWritable, StoreBusy
from featurestore.storage import Root, temporary_name

LOCK = "run.lock"
HOLDER = "run.lock.json"
LONGEST = 1000  # characters of it that are read


@contextmanager
def exclusive(root: Root, verb: str, *, optional: bool = False) -> Iterator[None]:
    """Hold the store for the whole of ``verb``.

    Args:
        root: of the store.
        verb: what other processes are told.
        optional: where this user may not write the store, it is enough that no process is changing it now.

    Raises:
        StoreBusy: another process holds it; the message says which, on what host and since when.
        NotWritable: something in the store belongs to somebody else.
    """
    try:
        root.refuse_unwritable()
    except NotWritable:
        if not optional:
            raise
        refuse_busy(root)
        yield
        return
    lock = filelock.FileLock(root.local(LOCK))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise _busy(root, holder(root)) from error
    try:
        _sign(root, verb)
        yield
    finally:
        root.remove(HOLDER)
        lock.release()


def refuse_busy(root: Root) -> None:
    """Make sure that no process is changing the store.

    Raises:
        StoreBusy: one is.
    """
    found = living_holder(root)
    if found is not None:
        raise _busy(root, found)


def _busy(root: Root, found: str) -> StoreBusy:
    return StoreBusy(f"{root.path} is in use by {found}; wait for it to end, or stop it")


def _sign(root: Root, verb: str) -> None:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    text = json.dumps({"verb": verb, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
    with root.publishing(HOLDER) as temporary:
        temporary.write_text(text, encoding="utf-8")


def holder(root: Root) -> str:
    """Return who holds the store, as far as that is known."""
    found = _read(root)
    # It may have just begun, or be just ending.
    return "featurestore {verb} (pid {pid} on {host}, since {since})".format(**found) if found else "another process"


def living_holder(root: Root) -> str | None:
    """Return who holds the store, or None if nobody does. The lock itself is left alone: a run could be after it."""
    found = _read(root)
    if found is None or (found["host"] == socket.gethostname() and not is_alive(found["pid"])):
        return None
    return holder(root)


def _read(root: Root) -> dict[str, Any] | None:
    try:
        with root.local(HOLDER).open(encoding="utf-8") as file:
            content = json.loads(file.read(LONGEST))
        found = {name: content[name] for name in ("verb", "pid", "host", "since")}
        # 0 and less would name groups of processes
        return found if type(found["pid"]) is int and 0 < found["pid"] < 2**31 else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def is_alive(pid: int) -> bool:
    """Return whether a process of this host is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's process
    return True


def draft_folder(target: Path) -> Path:
    """Return the name under which this process makes the folder ``target``; what dead processes left is removed.

    The name tells whose it is: it ends when the process does, in order or not.
    """
    mine = temporary_name(target.name, os.getpid())
    name = re.compile(rf"\.tmp-([0-9a-f]{{12}}){re.escape(mine[17:])}")
    for path in list(target.parent.iterdir()):
        found = name.fullmatch(path.name)
        if found and (int(found[1], 16) == os.getpid() or not is_alive(int(found[1], 16))):
            shutil.rmtree(path)
    return target.with_name(mine)
