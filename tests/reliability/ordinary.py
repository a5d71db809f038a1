"""The command line as an ordinary user: root loses what lets it pass by permissions, and so do its children.

``python -m tests.reliability.ordinary VERB ...``; the exit code is 77 where root can't give that up.
"""

from __future__ import annotations

import ctypes
import runpy
import sys

VERSION, SET_DROP = 0x20080522, 24
# To change owners, to pass by permissions of files and of folders, and to act as an owner
RIGHTS = range(4)


def give_up() -> bool:
    """Give the rights up, and return whether that worked."""
    libc = ctypes.CDLL(None)
    header, rights = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    if any(libc.prctl(SET_DROP, right, 0, 0, 0) for right in RIGHTS) or libc.capget(header, rights):
        return False
    for which in range(3):  # effective, permitted, inheritable
        rights[which] &= ~sum(1 << right for right in RIGHTS)
    return bool(libc.capset(header, rights) == 0)


if __name__ == "__main__":
    if not give_up():
        sys.exit(77)
    runpy.run_module("featurestore", run_name="__main__", alter_sys=True)
