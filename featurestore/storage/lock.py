"""The run lock: one process at a time changes a store; other processes are told which one.

The operating system drops the lock when its holder dies, so a dead process never keeps a store busy. Whether the lock
is visible to other machines depends on the file system: see `lease`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import filelock

from featurestore.errors import NotWritable, StoreBusy
from featurestore.storage import lease
from featurestore.storage.lease import Lease, read_signature, seen_signature, watch
from featurestore.storage.root import Root
from featurestore.storage.writer import Writer
from featurestore.system import readable, writing

LOG = logging.getLogger("featurestore.storage")
LOCK = "run.lock"
PROBED_SECONDS = 0.3  # a process that asks who holds a store has its lock for microseconds

Say = Callable[[str], None]


def say_nothing(line: str) -> None:
    """Ignore the line."""


@contextmanager
def exclusive(root: Root, verb: str, *, say: Say = say_nothing) -> Iterator[Writer]:
    """Hold the store for the whole of ``verb``, and yield the right to change it.

    Args:
        root: of the store.
        verb: the name that other processes show.
        say: reports a line to the user, for example that this waits for a sign of life from another machine.

    Raises:
        StoreBusy: another process holds it; the message says which, on what host and since when. Or, from whatever
            changes the store later: another process took over.
        NotWritable: this user may not write a part of the store.
    """
    root.refuse_unwritable()
    with _held(root, verb, say) as writer:
        yield writer


@contextmanager
def unchanged(root: Root, verb: str, *, say: Say = say_nothing) -> Iterator[None]:
    """Keep others from changing the store for the whole of ``verb``, which changes nothing itself.

    Where this user may not write the store, it is enough that no process is changing it now. Arguments and errors are
    those of `exclusive`.
    """
    try:
        root.refuse_unwritable()
    except NotWritable:
        refuse_busy(root, say=say)
        yield
        return
    with _held(root, verb, say):
        yield


@contextmanager
def _held(root: Root, verb: str, say: Say) -> Iterator[Writer]:
    with _locked(root):
        _wait_for_another_machine(root, say, then=f"this {verb} takes over")
        with Lease(root, verb).held() as writer:
            started = time.monotonic()
            LOG.info("%s holds the run lock of %s", verb, root.path)
            try:
                yield writer
            finally:
                LOG.info("%s releases the run lock after %.1f s", verb, time.monotonic() - started)


@contextmanager
def _locked(root: Root) -> Iterator[None]:
    lock = filelock.FileLock(root.local(LOCK))
    try:
        with readable(root.local(LOCK)), writing(root.local(LOCK)):
            lock.acquire(timeout=PROBED_SECONDS, poll_interval=0.01)
    except filelock.Timeout as error:
        raise _busy(root, holder(root)) from error
    try:
        yield
    finally:
        lock.release()


def _wait_for_another_machine(root: Root, say: Say, *, then: str) -> None:
    """Wait for a sign of life of a holder on another machine, whose lock is not visible here.

    Raises:
        StoreBusy: there was one.
    """
    found = read_signature(root)
    if found is None or found.is_of_this_machine:
        return
    say(f"{root.path} was signed by {found}; waiting up to {lease.STALE_SECONDS:.0f} s for a sign of life from there")
    now = watch(root, found, seconds=lease.STALE_SECONDS)
    if now is None:
        return
    if now != found:
        raise _busy(root, str(now))
    say(f"there was no sign of life from {found.host} for {lease.STALE_SECONDS:.0f} s; {then}")
    LOG.warning("the lock of %s is taken over from %s", root.path, found)


def refuse_busy(root: Root, *, say: Say = say_nothing) -> None:
    """Check that no process is changing the store.

    Raises:
        StoreBusy: one is.
    """
    if _is_locked(root):
        raise _busy(root, holder(root))
    _wait_for_another_machine(root, say, then="it is taken for dead")


def _busy(root: Root, found: str) -> StoreBusy:
    return StoreBusy(f"{root.path} is in use by {found}; wait for it to end, or stop it")


def holder(root: Root) -> str:
    """Return who holds the store, as far as that is known."""
    # It may be starting or ending.
    return str(seen_signature(root) or "another process")


def living_holder(root: Root) -> str | None:
    """Return who holds the store, or None if no process does.

    If the holder is on another machine, this waits some seconds for its sign of life.
    """
    locked, found = _is_locked(root), seen_signature(root)
    if locked:
        return holder(root)
    if found is None or (locked is False and found.is_of_this_machine):
        return None
    now = watch(root, found, seconds=lease.LOOK_SECONDS)
    if now != found:
        return None if now is None else str(now)
    return (
        f"{found}, unless that has died: there was no sign of life for {lease.LOOK_SECONDS:.0f} s. A verb that "
        f"changes the store waits {lease.STALE_SECONDS:.0f} s for one, and then takes over"
    )


def _is_locked(root: Root) -> bool | None:
    """Return whether a process has the lock, None if this user or the file system can't tell.

    This tries a shared lock, so that two processes that ask do not block each other.
    """
    try:
        descriptor = os.open(root.local(LOCK), os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
