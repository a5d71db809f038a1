"""The command line with a full disk behind its output, or in a terminal of few characters.

``python -m tests.reliability.redirected HOW VERB ...``, where HOW is JSON: ``{"stdout": "/dev/full"}`` or
``{"encoding": "ascii"}``. Only streams that are closed from the start need a process that starts cold.
"""

from __future__ import annotations

import json
import os
import runpy
import sys


def redirect(*, stdout: str | None = None, encoding: str | None = None) -> None:
    """Do what a shell, or Python for ``PYTHONIOENCODING``, does before the program begins."""
    if stdout is not None:
        descriptor = os.open(stdout, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.close(descriptor)
    if encoding is not None:
        sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115 - as long as the process lives
        sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115 - as long as the process lives


if __name__ == "__main__":
    redirect(**json.loads(sys.argv.pop(1)))
    runpy.run_module("featurestore", run_name="__main__", alter_sys=True)
