"""Ctrl-C and SIGTERM: the first signal ends a verb cleanly, the second immediately. Nothing is lost either way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO = 0.5  # seconds: a terminal signals its whole process group, and a wrapper may forward the same signal again


class _Holding:
    """The nesting depth of `held_back` blocks of the main thread, and whether a signal arrived in them."""

    depth = 0
    late = False


@contextmanager
def held_back() -> Iterator[None]:
    """Defer Ctrl-C until the block ends. Only for short, non-blocking work.

    It affects signals handled by `interruptible`. Python handles signals in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Holding.depth += 1
    try:
        yield
    finally:
        _Holding.depth -= 1
        if _Holding.late and not _Holding.depth:
            _Holding.late = False
            raise KeyboardInterrupt


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM in threads and processes that this thread starts meanwhile: they inherit its mask.

    Blocked and not ignored: a signal that arrives meanwhile is handled afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ready_thread() -> ThreadPoolExecutor:
    """Return an executor whose one thread runs already.

    If Ctrl-C arrives while an executor starts a thread, the executor forgets the thread and does not wait for its task.
    Here that first task does nothing.
    """
    from concurrent.futures import ThreadPoolExecutor  # late: `--help` does without

    thread = ThreadPoolExecutor(1)
    thread.submit(int).result()
    return thread


class Interrupt:
    """Whether a signal asked the verb to end, and which one."""

    def __init__(self) -> None:
        """Start without a signal."""
        self.signal: int | None = None
        self._asked = 0.0

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM: a shell's exit codes for a program that a signal ended."""
        return 128 + (self.signal or signal.SIGINT)

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: on the first signal, or at the end of `held_back`. A later signal ends the process
                immediately, like SIGKILL.
        """
        if self.signal is None:
            self.signal, self._asked = number, time.monotonic()
            if not _Holding.depth:
                raise KeyboardInterrupt
            _Holding.late = True
        elif time.monotonic() - self._asked > ECHO:
            self._leave(number)

    @staticmethod
    def _leave(number: int) -> NoReturn:
        with suppress(OSError):  # stderr is closed
            os.write(2, b"stopped immediately; finished work is kept\n")
        os._exit(128 + number)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt, unless they are ignored, as nohup and a shell's ``&`` do."""
    interrupt = Interrupt()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt.ask)
    try:
        yield interrupt
    finally:
        if interrupt.signal is None:  # else the process is about to end, and one more signal changes nothing
            for number, handler in before.items():
                signal.signal(number, handler)
