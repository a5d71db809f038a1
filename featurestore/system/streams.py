"""The program's standard streams: there whatever its caller closed, and no end of work whose report they can't take.

A verb that asks prints an answer, in `must_arrive`: if it can't be printed, the verb has failed. A verb that works
prints a report: if that can't be printed, the work is done nevertheless, and a line on stderr says what was lost.
Characters that the terminal's encoding does not have are printed as escapes.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from featurestore.errors import OutputError


class _Output(io.FileIO):
    """A stream that forgets what it can't write, but for answers."""

    def __init__(self, descriptor: int, *, closed: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.closed_by_caller = closed
        self.strict = False
        self.failure: OSError | None = None

    def write(self, data: object) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            self.failure = error
            if self.strict:
                raise
            return memoryview(data).nbytes  # type: ignore[arg-type]


def prepare_streams() -> None:
    """Make the three streams usable. Before anything else is opened, which would take a closed stream's number."""
    closed = [number for number in range(3) if _is_closed(number)]
    for number in closed:  # ascending, since each gets the lowest number that is free
        os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.set_inheritable(number, True)  # a child's stderr would be closed again
    if sys.stdin is None or 0 in closed:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = _text(sys.stdout, 1, closed=1 in closed)
    sys.stderr = _text(sys.stderr, 2, closed=2 in closed)


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def _text(before: TextIO | None, number: int, *, closed: bool) -> TextIO:
    raw = _Output(number, closed=closed)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
    )


def _output(stream: object) -> _Output | None:
    """Return what `prepare_streams` made of a stream, None if it did not."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Output) else None


@contextmanager
def must_arrive() -> Iterator[None]:
    """Print an answer to stdout.

    Raises:
        OutputError: it can't be printed.
        BrokenPipeError: its reader has seen enough.
    """
    raw = _output(sys.stdout)
    if raw is None:
        yield
        return
    if raw.closed_by_caller:
        raise OutputError("stdout is closed, so the answer can't be printed; let it go to a file or a terminal")
    raw.strict = True
    try:
        yield
        sys.stdout.flush()
    except Exception as error:
        if raw.failure is None or isinstance(raw.failure, BrokenPipeError):
            raise
        raise OutputError(
            f"the answer could not be printed: {os.strerror(raw.failure.errno or 0)}; let it go somewhere else"
        ) from error
    finally:
        raw.strict = False


def lost_output() -> str | None:
    """Return why a report on stdout did not arrive, None if it did, or if no one waits for it."""
    raw = _output(sys.stdout)
    if raw is None or raw.failure is None or raw.failure.errno == errno.EPIPE:
        return None
    return os.strerror(raw.failure.errno or 0)
