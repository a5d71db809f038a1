"""The run lock: whoever is turned away is told who holds it, and the dead hold nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore.errors import NotWritable, StoreBusy
from featurestore.lock import HOLDER, exclusive, holder, living_holder
from featurestore.storage import Root

HOLD = """
import sys
from pathlib import Path
from featurestore.lock import exclusive
from featurestore.storage import Root
with exclusive(Root(Path(sys.argv[1])), "run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@contextmanager
def another_process(root: Root) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store until its stdin is closed."""
    checkout = Path(__file__).parent.parent
    command = [sys.executable, "-c", HOLD, str(root.path)]
    with subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def take(root: Root) -> bool:
    with exclusive(root, "ingest"):
        return True


def test_the_second_is_told_who_is_first(root: Root) -> None:
    with another_process(root) as process:
        who = (
            rf"featurestore run \(pid {process.pid} on {re.escape(socket.gethostname())}, "
            r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)"
        )
        text = f"^{re.escape(str(root.path))} is in use by {who}; wait for it to end, or stop it$"
        with pytest.raises(StoreBusy, match=text):
            take(root)
        assert re.fullmatch(who, living_holder(root) or "")
        process.communicate()
    assert process.returncode == 0
    assert living_holder(root) is None
    assert not root.local(HOLDER).exists()
    assert take(root)


def test_the_dead_hold_nothing(root: Root) -> None:
    with another_process(root) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert root.local(HOLDER).exists()  # it could not tidy up
    assert living_holder(root) is None
    assert take(root)


def test_it_is_free_after_an_exception(root: Root) -> None:
    with pytest.raises(KeyError), exclusive(root, "run"):
        raise KeyError
    assert take(root)


def test_one_process_takes_it_once(root: Root) -> None:
    with exclusive(root, "run"), pytest.raises(StoreBusy, match=rf"featurestore run \(pid {os.getpid()} on "):
        take(root)


def signed(pid: object, host: str) -> str:
    return json.dumps({"verb": "run", "pid": pid, "host": host, "since": "today"})


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '{"pid": 3}', "[" * 5000, *(signed(pid, "elsewhere") for pid in (0, -1, 2**70, "1", None))],
)
def test_a_holder_that_has_just_begun_is_another_process(root: Root, content: str) -> None:
    root.local(HOLDER).write_text(content, encoding="utf-8")
    assert holder(root) == "another process"
    assert living_holder(root) is None


def test_a_holder_on_another_machine_is_believed(root: Root) -> None:
    nobody = 2**22 + 1  # above what Linux gives out
    root.local(HOLDER).write_text(signed(nobody, "elsewhere"), encoding="utf-8")
    assert living_holder(root) == f"featurestore run (pid {nobody} on elsewhere, since today)"
    root.local(HOLDER).write_text(signed(nobody, socket.gethostname()), encoding="utf-8")
    assert living_holder(root) is None


def test_somebody_elses_process_is_alive(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_permitted(pid: int, number: int) -> None:
        raise PermissionError

    root.local(HOLDER).write_text(signed(1, socket.gethostname()), encoding="utf-8")
    monkeypatch.setattr(os, "kill", not_permitted)
    assert living_holder(root) is not None


def test_a_store_that_cannot_be_written_is_said_to_be(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever runs as root may write everywhere
    with pytest.raises(NotWritable, match=r"belongs to \S+ and can't be written by \S+; work on a copy"):
        take(root)
    assert list(root.path.iterdir()) == []
