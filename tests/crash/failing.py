"""The command line, in which a system call fails: ``python -m tests.crash.failing fdatasync EIO run STORE ...``."""

from __future__ import annotations

import errno
import sys

from tests.faults import fail_syscall

if __name__ == "__main__":
    name, code, *arguments = sys.argv[1:]
    fail_syscall(name, getattr(errno, code))  # before DuckDB has threads

    from featurestore.cli import main

    sys.argv = ["featurestore", *arguments]
    main()
