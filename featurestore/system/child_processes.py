"""Child processes in Python: command line, environment, how they ended, and that they end with their parent."""

from __future__ import annotations

import hashlib
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

PACKAGE = str(Path(__file__).resolve().parent.parent.parent)


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module. The current folder, which may be untrusted, is not searched."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**values: str) -> dict[str, str]:
    """Return the environment of a child process that finds this package, with ``values`` added."""
    path = os.pathsep.join(filter(None, (PACKAGE, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, **values, "PYTHONPATH": path}


def ending(code: int) -> str:
    """Return how a process ended: its exit code, or the signal's name."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


@cache
def boot_id() -> str:
    """Return the id of this machine's boot; empty if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@cache
def process_space() -> str:
    """Return 8 hex digits for the processes that this one can see: those of a boot of a machine, or of a container."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        namespace = ""
    return hashlib.sha256(f"{boot_id() or os.uname().nodename} {namespace}".encode()).hexdigest()[:8]


def owner_mark() -> str:
    """Return the part of a temporary name that says that it is this process's; see `left_by_dead`."""
    return f"{process_space()}.{os.getpid()}-"


def left_by_dead(folder: Path, begin: str, end: str, *, in_work: Collection[str] | None = None) -> list[Path]:
    """Return the files and folders in ``folder`` whose names have the `owner_mark` of a process that has died.

    Only those of processes of this machine: whether another one's process lives can't be seen.

    Args:
        folder: that may not be listed if this user can't.
        begin: of the names, as a regular expression.
        end: of the names, likewise.
        in_work: the names that are this process's; others with its number are of an earlier one. None spares them all.
    """
    name = re.compile(rf"{begin}{process_space()}\.([1-9][0-9]{{0,8}})-{end}")
    try:
        with os.scandir(folder) as entries:
            found = [match for entry in entries if (match := name.fullmatch(entry.name))]
    except OSError:
        return []
    own = os.getpid() if in_work is not None else 0
    return [
        folder / match[0]
        for match in found
        if match[0] not in (in_work or ()) and (int(match[1]) == own or not is_alive(int(match[1])))
    ]


def is_alive(pid: int) -> bool:
    """Return whether a process of this host is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's process
    return True


def end_with(parent: int) -> None:
    """End this process as soon as its parent has ended.

    Args:
        parent: the pid of the process that began it, or for which a fork server did. The parent passes it: asking here
            would race with its death.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    has_ended, is_child = _wait_for(parent), os.getppid() == parent  # else a fork server's
    while (os.getppid() == parent if is_child else is_alive(parent)) and not has_ended():
        pass
    os._exit(1)


def _wait_for(pid: int) -> Callable[[], object]:
    """Return a function that waits for the end of a process, or half a second where the system can't tell.

    It returns something true only of a process that has ended.
    """
    try:
        poll = select.poll()
        poll.register(os.pidfd_open(pid), select.POLLIN)
    except (AttributeError, OSError):  # not Linux, or a sandbox that forbids it
        return lambda: time.sleep(0.5)
    return poll.poll
