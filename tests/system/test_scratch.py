"""Scratch folders of killed processes do not stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from featurestore.system import lasting_scratch_folder, scratch_folder
from featurestore.system.child_processes import process_space
from tests.faults import can_fail_syscalls

KILLED = """
import os, signal
from featurestore.system import lasting_scratch_folder
(lasting_scratch_folder() / "spilled").write_text("rows")
os.kill(os.getpid(), signal.SIGKILL)
"""

FAILING = """
import errno
from pathlib import Path
from featurestore.system import scratch_folder, temporary_folder
from tests.faults import fail_syscall
lasting = temporary_folder()
(Path(lasting.name) / "dropped.png").touch()
with scratch_folder() as folder:
    (folder / "spilled").touch()
    fail_syscall("unlinkat", errno.EIO)
"""


def test_the_next_process_removes_those_of_killed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "spilled").exists()
    space, dead, end = process_space(), left.name.split(".")[1].split("-")[0], "abcdefgh"
    kept = [
        f"featurestore-{space}.{os.getppid()}-{end}",  # of a process that lives
        f"featurestore-{int(space, 16) ^ 1:08x}.{dead}-{end}",  # of another machine
        f"featurestore-{space}.{dead}-{end}x",  # of somebody else
        f"featurestore-{end}",
        f"my-featurestore-{space}.{dead}-{end}",
    ]
    for name in kept:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        other = lasting_scratch_folder()
        assert other is not None
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, folder.name, other.name])


@pytest.mark.skipif(not can_fail_syscalls(), reason="needs seccomp, and the numbers of this processor's system calls")
def test_a_folder_that_cannot_be_removed_costs_nothing(tmp_path: Path) -> None:
    there = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    ended = subprocess.run([sys.executable, "-c", FAILING], env=there, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(list(tmp_path.iterdir())) == 2, "both are left for the next process"
