"""Ctrl-C and SIGTERM: the first ends a verb in order, the second at once. Nothing is lost either way."""

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
ECHO = 0.5  # seconds: a terminal signals its whole group, and a wrapper that forwards what it gets doubles that


class _Holding:
    """How many blocks of `held_back` the main thread is in, and whether a signal came meanwhile."""

    depth = 0
    late = False


@contextmanager
def held_back() -> Iterator[None]:
    """Let a short piece of work end before an interrupt is raised; what waits or lasts has no place in it.

    Only `interruptible` knows of it, and Python handles signals in the main thread alone.
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


def ready_thread() -> ThreadPoolExecutor:
    """Return an executor of one thread that is there already.

    Ctrl-C in the moment in which an executor starts a thread makes it forget that thread: nobody would wait for what it
    was to do. Here that is nothing yet.
    """
    from concurrent.futures import ThreadPoolExecutor  # late: `--help` does without

    thread = ThreadPoolExecutor(1)
    thread.submit(int).result()
    return thread


class Interrupt:
    """Whether a verb is to end, and by which signal."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.signal: int | None = None
        self._asked = 0.0

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM: what a shell makes of a program that a signal ended."""
        return 128 + (self.signal or signal.SIGINT)

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: on the first, or when `held_back` is over. On another, the process ends
                here and now, as SIGKILL would end it.
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
            os.write(2, b"stopped at once; whatever was finished is kept\n")
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
