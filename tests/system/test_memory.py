"""What glibc keeps of freed memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from featurestore.system import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(10):
    b"x" * (40 << 20)  # larger than what glibc keeps by default
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(how: str, **environment: str) -> int:
    """Return the page faults of a process that allocates and frees the same memory again and again."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def on_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError):
        return False


@pytest.mark.skipif(not on_glibc(), reason="the thresholds are those of glibc")
def test_freed_memory_is_used_again() -> None:
    pages = 10 * (40 << 20) // os.sysconf("SC_PAGESIZE")
    assert faults("leave") > pages
    assert faults("keep") < pages / 2
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="1000000") > pages, "what the user has set stays"
