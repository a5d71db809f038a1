"""The program: ``featurestore run ...``, which is also ``python -m featurestore run ...``."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from typing import NoReturn

from featurestore.system import lost_output


def program() -> NoReturn:
    """Be the program: `cli.main`, and the end of the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While modules are imported nothing has begun: Ctrl-C ends it without a traceback. `main` takes over.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(200_000)  # as mypy does: imports make many objects and no garbage, and looking for it takes 10 %
    from featurestore.system import prepare_streams

    prepare_streams()
    from featurestore.cli import main

    try:
        main()
    except SystemExit as end:
        leave(int(end.code or 0))


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


if __name__ == "__main__":
    program()
