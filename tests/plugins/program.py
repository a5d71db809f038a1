"""A program that is given as text: ``-m tests.plugins.program TEXT ARGUMENTS`` does what ``-c TEXT ARGUMENTS`` does."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.argv[0]
    exec(compile(sys.argv[0], "<text>", "exec"), {"__name__": "__main__"})
