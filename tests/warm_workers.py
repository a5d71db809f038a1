"""Workers of the local engine that start in milliseconds: forked from a process in which everything is imported.

loky starts a new Python for each of them, which takes half a second of CPU time to import what tasks need. Here it
gets a true child in its place: with the pipes, the environment, the folder and the signals that loky gives, and with
the poison of ``PYTHONPATH``. Its resource tracker, for which each process that has workers starts a Python that
imports joblib, is forked as well. A test of the start itself needs `cold_workers`, and so does one that looks for a
worker by a variable of its environment.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import pickle
import re
import resource
import runpy
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from joblib.externals.loky.backend import fork_exec as loky_start
from joblib.externals.loky.backend import resource_tracker as loky_tracker

from tests.faults import is_ordinary_user, ordinary_user

WORKER = "joblib.externals.loky.backend.popen_loky_posix"
TRACKER = f"from {loky_tracker.__name__} import main; "
SUBREAPER = 36  # of prctl: this process takes the orphans below it as its own children
LARGEST = 1 << 17  # bytes of a request

# before `forking` puts others in their place
cold: Callable[..., int] = loky_start.fork_exec
cold_tracker: Callable[..., tuple[int, None]] = loky_tracker.spawnv_passfds


class Nursery:
    """The process that forks workers, and what this process asks it by. It has no threads, and ends with this one."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        """Let ``connect`` start a process that does `serve`, for the first worker."""
        self._connect, self._lock = connect, threading.Lock()
        self._connection: socket.socket | None = None
        self._pid, self._limits = os.getpid(), limits()

    def start(self, command: Sequence[str], descriptors: Sequence[int], env: Mapping[str, str] | None = None) -> int:
        """Start a child, as loky's ``fork_exec`` does, and return its pid."""
        return self._fork(command, descriptors, env) or cold(command, descriptors, env)

    def start_tracker(self, path: bytes, command: Sequence[str], descriptors: Sequence[int]) -> tuple[int, None]:
        """Start a child, as loky's ``spawnv_passfds`` does, and return its pid."""
        pid = self._fork(command, descriptors, None)
        return (pid, None) if pid else cold_tracker(path, command, descriptors)

    def _fork(self, command: Sequence[str], descriptors: Sequence[int], env: Mapping[str, str] | None) -> int | None:
        """Return the pid of a warm child, or nothing where only a cold one does."""
        same = os.getpid() == self._pid and limits() == self._limits
        warm = WORKER in command or command[-1].startswith(TRACKER)
        if not warm or not same or (self._connection is None and is_ordinary_user()):
            return None
        kept = sorted({0, 1, 2, *map(int, descriptors)})
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        request = (list(command), kept, {**os.environ, **(env or {})}, Path.cwd(), mask, is_ordinary_user(), self._pid)
        with self._lock:
            try:
                return self._ask(pickle.dumps(request), kept)
            except (ConnectionError, ValueError):  # killed with the process group of this one
                return None

    def _ask(self, request: bytes, descriptors: Sequence[int]) -> int:
        if self._connection is None:
            self._connection = self._connect()
        libc = ctypes.CDLL(None)
        libc.prctl(SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(self._connection, [request], descriptors)
            pid = int(self._connection.recv(20))
            self._connection.recv(20)  # it is our child now
        finally:
            libc.prctl(SUBREAPER, 0, 0, 0, 0)
        return pid

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()


def connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection: of the process that asks, and of the one that forks."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@contextmanager
def forking(nursery: Nursery) -> Iterator[None]:
    """Let loky take workers from a nursery."""
    loky_start.fork_exec, loky_tracker.spawnv_passfds = nursery.start, nursery.start_tracker
    try:
        yield
    finally:
        loky_start.fork_exec, loky_tracker.spawnv_passfds = cold, cold_tracker
        nursery.close()


def fork_nursery() -> Nursery:
    """Fork one from this process, which has no threads yet."""
    here, there = connected()
    if os.fork() == 0:
        here.close()
        serve(there)
    there.close()
    return Nursery(lambda: here)


def serve(connection: socket.socket) -> NoReturn:
    """Fork a worker for each request, until the other end is closed."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        request, descriptors, *_ = socket.recv_fds(connection, LARGEST, 64)
        if not request:
            os._exit(0)
        between = os.fork()  # when it has ended, its child is that of the process that has asked
        if between == 0:
            if pid := os.fork():
                connection.send(str(pid).encode())
                os._exit(0)
            connection.detach()
            become_child(descriptors, *pickle.loads(request))
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(between, 0)
        connection.send(b"done")


def become_child(
    received: Sequence[int],
    command: list[str],
    wanted: Sequence[int],
    environment: Mapping[str, str],
    *state: Any,
) -> NoReturn:
    """Be a worker of loky, or its tracker: everything from here on is its own."""
    code = 1
    try:
        folder, mask, ordinary, parent = state
        take_descriptors(received, wanted)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while os.getppid() != parent:  # for a moment it is that of the process between
            time.sleep(0.001)
        sys.orig_argv[:] = command
        if command[-1].startswith(TRACKER):
            track(command[-1], environment.get("PYTHONWARNINGS", ""))
        if path := environment.get("PYTHONPATH"):
            sys.path[:0] = path.split(os.pathsep)
            sys.modules.pop("sitecustomize", None)
            if importlib.util.find_spec("sitecustomize"):
                importlib.import_module("sitecustomize")
        sys.argv[:] = command[2:]
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # it has been imported already
        with ordinary_user() if ordinary else nullcontext():
            runpy.run_module(WORKER, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(code)


def track(code: str, filters: str) -> NoReturn:
    """Be the resource tracker, which warns of what a killed run leaves, but for what its environment forbids."""
    warnings.resetwarnings()
    for option in filter(None, filters.split(",")):
        action, _, message = option.partition(":")
        warnings.filterwarnings(action, message=re.escape(message))  # type: ignore[arg-type]
    exec(code)
    raise SystemExit


def take_descriptors(received: Sequence[int], wanted: Sequence[int]) -> None:
    """Give what was received the numbers that it has in the parent, and close all else."""
    above = max(*received, *wanted) + 1
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in received]
    os.closerange(0, above)
    for descriptor, number in zip(aside, wanted, strict=True):
        os.dup2(descriptor, number, inheritable=number < 3)
    for number in range(3, max(aside) + 1):
        if number not in wanted:
            try:
                os.close(number)
            except OSError:  # it is not open
                continue


def limits() -> list[tuple[int, int]]:
    """Return what the system grants to this process."""
    names = sorted(name for name in vars(resource) if name.startswith("RLIMIT_"))
    return [resource.getrlimit(getattr(resource, name)) for name in names]
