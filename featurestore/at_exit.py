"""What has to be put away before the interpreter ends."""

from __future__ import annotations

import atexit
import os
import sys
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
