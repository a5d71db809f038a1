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
    """Entry point: run the command line, then exit without interpreter teardown."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # During the imports Ctrl-C simply ends the process, without a traceback. `main` installs its own handler.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Arithmetic is done on one thread of BLAS in any case; to start the others is a tenth of the time of `status`.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(200_000)  # imports make many objects and no garbage; collecting takes 10 % of the start (as mypy)
    from featurestore.system import prepare_streams

    prepare_streams()
    from featurestore.cli import main

    try:
        main()
    except SystemExit as end:
        leave(int(end.code or 0))


def leave(code: int) -> NoReturn:
    """End the process: run the exit handlers, but skip interpreter finalization.

    Finalization would take a tenth of a second, more than all queries of ``status``. Mypy ends in the same way.
    """
    atexit._run_exitfuncs()
    if not code and (reason := lost_output()):
        print(f"warning: the work is done, and its report could not be printed: {reason}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the reader has closed the pipe, or the disk is full
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    program()
