"""The program: ``featurestore run ...``, which is also ``python -m featurestore run ...``."""

from __future__ import annotations

import gc
import signal
from typing import NoReturn


def program() -> NoReturn:
    """Be the program: `cli.main`, and the end of the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While modules are imported nothing has begun: Ctrl-C ends it without a traceback. `main` takes over.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(200_000)  # as mypy does: imports make many objects and no garbage, and looking for it takes 10 %
    from featurestore.system import prepare_streams

    prepare_streams()
    from featurestore.at_exit import leave
    from featurestore.cli import main

    try:
        main()
    except SystemExit as end:
        leave(int(end.code or 0))


if __name__ == "__main__":
    program()
