"""The time limit of one image, enforced by the kernel: only that stops a decoder that hangs.

CPU time counts for the whole process, with all its threads. An image over the limit ends its process by a signal, which
tells which limit it was. So only worker processes are limited, since they can be replaced.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

CPU, CLOCK = signal.SIGPROF, signal.SIGALRM
BY_THE_CLOCK = 10  # limit by the clock, as a multiple of the CPU limit: a slower process waits for a disk or a network
CPU_OVER, CLOCK_OVER = "took more than {} CPU seconds", "no answer within {} seconds"  # recorded in rows


def limit_met(death: str) -> signal.Signals | None:
    """Return the limit, `CPU` or `CLOCK`, whose signal a report of a process's death names; None for another death."""
    return next((limit for limit in (CPU, CLOCK) if limit.name in death), None)


class _Process:
    """Whether an image over its time limit may end this process."""

    expendable = False


def allow_limits() -> None:
    """Let `limited` end this process: it is a worker, and its engine notices."""
    _Process.expendable = True
    for number in (CPU, CLOCK):
        signal.signal(number, signal.SIG_DFL)  # it may have inherited that they are ignored


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
