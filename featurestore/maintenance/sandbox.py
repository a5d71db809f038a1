"""A sandbox process for work that may crash: reading untrusted or damaged files.

The child's memory is limited to what valid files need. A crash, whatever its cause, becomes one line.
"""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from featurestore import errors
from featurestore.errors import CorruptFile
from featurestore.system import ending, environment, python_command, readable, reason_unreadable, unreadable

MEMORY = 4 << 30  # bytes of address space; a row group of the largest images takes a fraction of it
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS)
REFUSED = 3  # the exit code of a child that reports an error as JSON


def run_child(job: str, *arguments: Path, memory: int = MEMORY) -> None:
    """Run one of `sandboxed.JOBS` in a child process.

    Raises:
        CorruptFile: what it read is damaged, or made the process crash.
        UnreadableFile: a file could not be read, or the process could not be started or was killed from outside.
        NotEnoughSpace: the disk has no room for what it makes.
        FeatureStoreError: another error of the job.
    """
    small = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    started = python_command("featurestore.maintenance.sandboxed", job, str(memory), *map(str, arguments))
    with readable(arguments[0]):
        done = subprocess.run(started, capture_output=True, env=environment(**small), check=False)
    if done.returncode == 0:
        return
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode == REFUSED and lines:
        name, message, facts = json.loads(lines[-1])
        error = getattr(errors, name)(message)
        vars(error).update(facts)
        raise error
    reason = _reason(done.returncode, done.stderr.decode(errors="replace"))
    if reason is not None:
        raise unreadable(arguments[0], reason)
    at = f" at {lines[-1]}" if lines else ""
    raise CorruptFile(f"the process that reads {arguments[0]} ended with {ending(done.returncode)}{at}; {_ADVICE}")


_ADVICE = "the file is damaged, or was made to do harm: put back a copy of it"


def _reason(code: int, stderr: str) -> str | None:
    """Return the reason if the process failed for one outside of the file; None if the file crashed it."""
    words = [reason_unreadable(RuntimeError(line)) for line in stderr.splitlines()]
    known = next(filter(None, words), None)
    if known is None and -code not in CRASHES:
        return f"the process that reads it ended with {ending(code)}"
    return known
