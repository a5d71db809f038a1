"""Child processes end with their parent, however it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A process, its child and its grandchild. The child is killed; the pipe ends when the grandchild has ended too.
# Between the last two there may be a fork server.
FAMILY = """
import os, signal, time
from featurestore.system import end_with
{before}
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    parent = os.getpid()
    if os.fork() == 0:
        {server}
        end_with(parent)
        os.write(writing, b"begun")
        time.sleep(60)
        os.write(writing, b"alive")
        os._exit(0)
    os.close(writing)
    signal.pause()
os.close(writing)
print(os.read(reading, 5).decode())
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(os.read(reading, 5).decode())
"""
WITHOUT_DESCRIPTORS = """
def pidfd_open(pid):
    raise OSError(38, "Function not implemented")
os.pidfd_open = pidfd_open
"""
WITHOUT_POLL = """
import select
del select.poll
"""
FORK_SERVER = "if os.fork(): os.close(writing), os.wait(), os._exit(0)"


@pytest.mark.parametrize("server", ["", FORK_SERVER], ids=["child", "of a fork server"])
@pytest.mark.parametrize("before", ["", WITHOUT_DESCRIPTORS, WITHOUT_POLL], ids=["told", "looking", "no poll"])
def test_a_child_ends_with_its_parent(before: str, server: str) -> None:
    code = FAMILY.format(before=before, server=server)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("begun\n\n", "")
