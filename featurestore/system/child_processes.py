"""Python processes that this one starts: how they find the package, how they ended, and that they end with it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

PACKAGE = str(Path(__file__).resolve().parent.parent.parent)


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command line of a module. No module is looked for in the current folder, which may be a stranger's."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**values: str) -> dict[str, str]:
    """Return the environment in which it finds this package, with ``values`` added."""
    path = os.pathsep.join(filter(None, (PACKAGE, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, **values, "PYTHONPATH": path}


def ending(code: int) -> str:
    """Return how a process ended: its exit code, or the signal's name."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def end_with(parent: int) -> None:
    """End this process as soon as its parent has ended.

    Args:
        parent: its pid. It is given, since asking here would race with the parent's death.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
