"""A limit on the time of one image, kept by the kernel: a decoder that never comes back hears of nothing else.

The CPU time is that of the whole process, all its threads included. What goes over a limit is ended with its process,
by a signal that tells which limit it was. So only worker processes are limited, which others can replace.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

CPU, CLOCK = signal.SIGPROF, signal.SIGALRM
BY_THE_CLOCK = 10  # a process that has not used its CPU seconds in so many times as long waits for a disk or a network
CPU_OVER, CLOCK_OVER = "took more than {} CPU seconds", "no answer within {} seconds"  # so rows say it


class _Process:
    """Whether this process may be ended for the time that an image takes."""

    expendable = False


def allow_limits() -> None:
    """Let `limited` end this process: it is a worker, and an engine notices its death."""
    _Process.expendable = True
    for number in (CPU, CLOCK):
        signal.signal(number, signal.SIG_DFL)  # ignored ones are inherited


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """End this process if the block takes more than ``seconds`` of CPU, or ten times that by the clock; 0: never."""
    if not seconds or not _Process.expendable:
        yield
        return
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, BY_THE_CLOCK * seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
