"""Workers that start warm are what loky's own are, but for their start."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky.backend.resource_tracker import ResourceTracker

from featurestore.engines import Task
from featurestore.engines.local import LocalEngine
from featurestore.rows import Row
from tests.conftest import LONG
from tests.warm_workers import WORKER

pytestmark = pytest.mark.skipif(LONG or sys.platform != "linux", reason="workers start as users start them")


class Look:
    """A task that says what its process is."""

    chunk_id = 0

    def run(self) -> list[Row]:
        command = Path("/proc/self/cmdline").read_text()
        names = sorted(
            path.resolve().name.partition(":")[0] for path in Path("/proc/self/fd").iterdir() if path.exists()
        )
        facts = {"argv": sys.orig_argv, "threads": os.environ["OMP_NUM_THREADS"], "parent": os.getppid(), "open": names}
        return [Row(os.getpid(), command, "ok", None, None, None, facts)]

    def split(self) -> list[Task[Row]]:
        return [self]

    def crashed(self, reason: str) -> list[Row]:
        return []


def look(engine: LocalEngine) -> Row:
    (row,) = engine.submit(Look()).result()
    return row


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine(1)
    yield engine
    engine.close()


def test_they_are_forked_children_with_the_environment_of_workers(engine: LocalEngine) -> None:
    row = look(engine)
    assert "forkserver" in row.filename
    assert WORKER in row.extra["argv"]
    assert (row.extra["parent"], row.extra["threads"]) == (os.getpid(), "1")


def test_they_hold_no_descriptor_that_loky_does_not_give(engine: LocalEngine, request: pytest.FixtureRequest) -> None:
    warm = look(engine).extra["open"]
    request.getfixturevalue("cold_workers")
    engine.restart()
    assert "forkserver" not in look(engine).filename
    assert warm == look(engine).extra["open"]


def test_it_is_seen_what_killed_one(engine: LocalEngine) -> None:
    pid = look(engine).image_id
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BrokenExecutor, match="SIGKILL"):
        list(map(look, [engine] * 100))  # the first may come before loky has seen it
    engine.close()
    assert not Path(f"/proc/{pid}").exists(), "a zombie is left"


@pytest.mark.parametrize(("filters", "warned"), [("", True), ("ignore:resource_tracker", False)])
def test_the_tracker_removes_what_is_left_and_warns_unless_it_is_silenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], filters: str, warned: bool
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", filters)
    left = tmp_path / "left"
    left.touch()
    tracker: Any = ResourceTracker()
    tracker.ensure_running()
    assert "forkserver" in Path(f"/proc/{tracker._pid}/cmdline").read_text()
    tracker.register(str(left), "file")
    tracker._stop()
    assert not left.exists()
    assert ("1 leaked file" in capfd.readouterr().err) == warned
