"""Real faults: what keeps a process from reading files that are whole."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

EIO = Path("/proc/self/mem")  # its first byte can't be read: a link to it is a file on a failing disk

_VERSION, _DAC = 0x20080522, 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_GET_BITS, _SET_BITS, _NO_ROOT = 27, 28, 1  # of prctl: what root gets back when it starts a program
_limited: list[bool] = []  # not empty while a thread of this process is an ordinary user


def is_ordinary_user() -> bool:
    """Whether `ordinary_user` holds, so that a process that is forked elsewhere has to enter it as well."""
    return bool(_limited)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Take from root the right to read everything, from this thread and from the programs that it starts."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root can read everything here")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    rights = (ctypes.c_uint32 * 6)()
    bits = libc.prctl(_GET_BITS, 0, 0, 0, 0)
    if libc.capget(header, rights) or libc.prctl(_SET_BITS, bits | _NO_ROOT, 0, 0, 0):
        pytest.skip("root can't be made an ordinary user here")
    fewer = (ctypes.c_uint32 * 6)(*rights)
    fewer[0] &= ~_DAC
    assert libc.capset(header, fewer) == 0
    _limited.append(True)
    try:
        yield
    finally:
        _limited.pop()
        assert libc.capset(header, rights) == 0
        assert libc.prctl(_SET_BITS, bits, 0, 0, 0) == 0


@contextmanager
def no_open_files() -> Iterator[None]:
    """Let no file be opened."""
    first_free = os.dup(0)
    os.close(first_free)
    with limited(resource.RLIMIT_NOFILE, first_free):
        yield


@contextmanager
def forbidden(*paths: Path) -> Iterator[None]:
    """Act as an ordinary user who does not own these files and folders."""
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0)
    try:
        with ordinary_user():
            yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


@contextmanager
def limited(what: int, n: int) -> Iterator[None]:
    """Lower a limit of this process, as ``resource.RLIMIT_NOFILE``."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def largest_file(n_bytes: int) -> AbstractContextManager[None]:
    """Let this process write no larger file."""
    return limited(resource.RLIMIT_FSIZE, n_bytes)


_SYSCALLS = {
    "x86_64": {"pwrite64": 18, "fdatasync": 75, "unlinkat": 263},
    "aarch64": {"pwrite64": 68, "fdatasync": 83, "unlinkat": 35},
}
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06  # of BPF: the number of the system call, a comparison, the end
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # of seccomp
_SET_SECCOMP, _FILTER, _NO_NEW_RIGHTS = 22, 2, 38  # of prctl


def can_fail_syscalls() -> bool:
    """Whether `fail_syscall` can do so here."""
    return sys.platform == "linux" and platform.machine() in _SYSCALLS


def fail_syscall(name: str, code: int) -> None:
    """Let a system call fail with an error code in this process, and in those that it starts, until they end.

    Threads that run already are left out.
    """
    number = _SYSCALLS[platform.machine()][name]
    steps = [(_LOAD, 0, 0, 0), (_IS, 0, 1, number), (_RETURN, 0, 0, _ERRNO | code), (_RETURN, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_void_p))

    filter_ = Filter(len(steps), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_NO_NEW_RIGHTS, 1, 0, 0, 0) == 0
    assert libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(filter_), 0, 0) == 0
