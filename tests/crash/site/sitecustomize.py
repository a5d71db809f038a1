"""Poison for worker processes. Python imports this module at its start, where ``PYTHONPATH`` names this folder.

``FEATURESTORE_TEST_POISON`` is JSON: by an image's name, how a worker dies that is to extract it; ``project NAME`` is
for one that is to project it, and ``sift NAME`` lets the extractor fail at its picture, see `suffer`. The key ``start``
lets every worker die before it gets any work; ``clock`` is in the place of `timelimit.BY_THE_CLOCK`, and ``cpu`` is the
share of its limit of CPU time that an image may take.

``FEATURESTORE_TEST_ROOM`` is JSON, a number of bytes and a kind of file (``blocks/extract``): from the first such file
that a worker writes on, none of its files may grow beyond so many bytes.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

POISON: dict[str, str] = json.loads(os.environ.get("FEATURESTORE_TEST_POISON", "{}"))
ROOM: list[Any] = json.loads(os.environ.get("FEATURESTORE_TEST_ROOM", "[]"))


def die(how: str) -> None:
    """Die, or (``memory``) find that there is no memory."""
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "kill":  # as the system does when memory runs out
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(7)
    elif how == "memory":
        suffer(how)


def suffer(how: str) -> None:
    """Raise, burn CPU time in C, wait, or run out of something; ``once MARK how``: if there is no such file yet."""
    if how.startswith("once "):
        _, mark, how = how.split(" ", 2)
        if Path(mark).exists():
            return
        Path(mark).touch()
    if how == "raise":
        raise KeyError("octave")
    if how == "spin":
        sum(range(10**15))
    elif how == "wait":
        time.sleep(10**6)
    elif how == "files":
        limited(resource.RLIMIT_NOFILE, 3, lambda: os.open(os.devnull, os.O_RDONLY))
    elif how == "threads":
        # Larger than any stack that the C library keeps: a thread on that would start, and hang for want of memory.
        before = threading.stack_size(1 << 28)
        try:
            limited(resource.RLIMIT_AS, 1 << 20, threading.Thread(target=int).start)
        finally:
            threading.stack_size(before)
    elif how == "memory":
        limited(resource.RLIMIT_AS, 1 << 35, lambda: bytearray(1 << 36))


def limited(what: int, limit: int, work: Any) -> None:
    """Do something under a limit of this process."""
    limits = resource.getrlimit(what)
    resource.setrlimit(what, (limit, limits[1]))
    try:
        work()
    finally:
        resource.setrlimit(what, limits)


def put_poison() -> None:
    """Replace the methods that a worker calls for an image."""
    from featurestore.stages import Extract, Sift
    from featurestore.stages.project import Project
    from featurestore.system import time_limit as timelimit

    original, apply, compute = Extract.extract, Project.apply, Sift.compute_float
    timelimit.BY_THE_CLOCK = int(POISON.get("clock", timelimit.BY_THE_CLOCK))
    share, set_timer = float(POISON.get("cpu", 1)), signal.setitimer
    at_work: list[str] = []

    def shortened(which: int, seconds: float) -> Any:
        return set_timer(which, seconds * share if which == signal.ITIMER_PROF else seconds)

    signal.setitimer = shortened  # type: ignore[assignment]

    def extract(stage: Extract, image_id: int, filename: str, path: str) -> Any:
        at_work[:] = [filename]
        if filename in POISON:
            die(POISON[filename])
        return original(stage, image_id, filename, path)

    def compute_float(extractor: Sift, pixels: Any) -> Any:
        suffer(POISON.get(f"sift {at_work[0]}", POISON.get("sift *", "")))
        return compute(extractor, pixels)

    def project(stage: Project, row: Any, model: Any) -> Any:
        if f"project {row.filename}" in POISON:
            die(POISON[f"project {row.filename}"])
        return apply(stage, row, model)

    Extract.extract = extract  # type: ignore[method-assign, assignment]
    Sift.compute_float = compute_float  # type: ignore[method-assign, assignment]
    Project.apply = project  # type: ignore[method-assign, assignment]


def put_limit(limit: int, kind: str) -> None:
    """Replace the method with which a worker begins a file."""
    from featurestore.storage import PartitionWriter

    original = PartitionWriter.__init__

    def begin(writer: PartitionWriter, path: Path, **options: Any) -> None:
        if kind in path.as_posix():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        original(writer, path, **options)

    PartitionWriter.__init__ = begin  # type: ignore[method-assign, assignment]


if any("popen_loky" in argument for argument in sys.orig_argv):
    if "start" in POISON:
        die(POISON["start"])
    if POISON:
        put_poison()
    if ROOM:
        put_limit(*ROOM)
