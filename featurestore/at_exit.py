"""What has to be put away before the interpreter ends."""

from __future__ import annotations

import atexit
import os
import sys
import typing
from typing import NoReturn

from featurestore.system import lost_output


def leave(code: int) -> NoReturn:
    """End the process, with all that was registered for its end, but without taking the interpreter apart.

    That would take a tenth of a second, more than all queries of ``status`` together. Mypy ends in the same way.
    """
    atexit._run_exitfuncs()
    if not code and (reason := lost_output()):
        print(f"warning: the work is done, and its report could not be printed: {reason}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it any more, or the disk is full
            code = code or 1
    os._exit(code)


def forget_overloads() -> None:
    """Keep DuckDB quiet at exit, where it would print "nanobind: leaked 27 instances!" and a page more (duckdb 2.0.0).

    DuckDB never lets go of the function with which it reads Arrow. That holds the module typing, and typing holds what
    SQLAlchemy declared as overloads: in its registry, and where ``dataclass_transform`` marks the function that stands
    for every overload. From there it is two steps to duckdb-engine, and one more to DuckDB's own types, which outlive
    the interpreter. Nobody asks for overloads at exit.
    """
    stands_for_all = typing.overload(forget_overloads)
    typing.clear_overloads()
    vars(stands_for_all).clear()
