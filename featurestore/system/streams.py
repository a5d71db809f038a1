"""Standard streams: usable even if the caller closed them. A report that can't be printed does not end the work.

A verb that reads prints an answer in `must_arrive`: if the answer can't be printed, the verb has failed. A verb that
changes the store prints a report: if the report can't be printed, the work is still done, and a line on stderr says
so. Characters outside of the terminal's encoding are printed as escapes.
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
    """An output stream that drops what it can't write, unless it is strict."""

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
    """Make the three streams usable. Call it before any file is opened, which would take a closed stream's number."""
    closed = [number for number in range(3) if _is_closed(number)]
    for number in closed:  # ascending, since each gets the lowest number that is free
        os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.set_inheritable(number, True)  # else a child's stderr would be closed
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
    """Return the `_Output` below a stream, None if `prepare_streams` did not make it."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Output) else None


@contextmanager
def must_arrive() -> Iterator[None]:
    """Print an answer to stdout.

    Raises:
        OutputError: it can't be printed.
        BrokenPipeError: its reader has closed the pipe.
    """
    raw = _output(sys.stdout)
    if raw is None:
        yield
        return
    if raw.closed_by_caller:
        raise OutputError("stdout is closed, so the answer can't be printed; redirect it to a file or a terminal")
    raw.strict = True
    try:
        yield
        sys.stdout.flush()
    except Exception as error:
        if raw.failure is None or isinstance(raw.failure, BrokenPipeError):
            raise
        raise OutputError(
            f"the answer could not be printed: {os.strerror(raw.failure.errno or 0)}; redirect it elsewhere"
        ) from error
    finally:
        raw.strict = False


def lost_output() -> str | None:
    """Return why a report could not be printed on stdout, None if it was, or if its reader has closed the pipe."""
    raw = _output(sys.stdout)
    if raw is None or raw.failure is None or raw.failure.errno == errno.EPIPE:
        return None
    return os.strerror(raw.failure.errno or 0)
