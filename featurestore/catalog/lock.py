"""The lock of the catalog, under which one process at a time opens it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import filelock

from featurestore.errors import NotWritable, StoreBusy
from featurestore.storage import Root
from featurestore.system import readable, writing

LOG = logging.getLogger("featurestore.catalog")
SLOW_SECONDS = 1.0  # of waiting or work, after which it is logged


@contextmanager
def exclusive(root: Root, *, optional: bool, seconds: float, poll: float) -> Iterator[None]:
    """Hold ``catalog.lock`` of a store.

    Args:
        root: of the store.
        optional: go on without it where this user may not write it.
        seconds: to wait for other processes.
        poll: seconds between two attempts.

    Raises:
        StoreBusy: other processes kept it for so long.
        NotWritable: this user may not write it.
        UnreadableFile: it can't be opened, for another reason.
    """
    path, started = root.local("catalog.lock"), time.monotonic()
    lock = filelock.FileLock(path)
    try:
        with readable(path), writing(path):
            lock.acquire(timeout=seconds, poll_interval=poll)
    except filelock.Timeout as error:
        raise StoreBusy(
            f"the catalog of {root.path} was in use by other processes for {seconds:.0f} seconds; "
            "wait for them to end, then run the same command again"
        ) from error
    except NotWritable:
        if not optional:
            raise
    if (waited := time.monotonic() - started) > SLOW_SECONDS:
        LOG.warning("waited %.1f s for the catalog, which another process had open", waited)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def logged_if_slow() -> Iterator[None]:
    """Log a transaction that takes long, since all other processes wait for it."""
    started = time.monotonic()
    yield
    if (seconds := time.monotonic() - started) > SLOW_SECONDS:
        LOG.warning("a transaction took %.1f s; other processes waited for it", seconds)
