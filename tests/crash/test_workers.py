"""A worker that dies costs the image that killed it, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.engines import Task, dispatch_tasks
from featurestore.engines.local import KEEPING, LocalEngine
from featurestore.errors import EngineLost
from featurestore.rows import Row
from featurestore.system import SIGNALS
from tests.conftest import LONG
from tests.crash.conftest import Ground
from tests.crash.harness import ROOT, left_in_session, photograph, run, sabotage

SITE = Path(__file__).parent / "site"
SILENT = ("--progress", "none")  # on a slow machine there would be a line every half minute
# Of 26 images in chunks of 9: the first and the last of all, and two neighbours within a chunk.
POISON = {
    "china/whole-000.jpg": "segfault",
    "flower/left-000.jpg": "kill",
    "china/left-090.jpg": "memory",
    "broken.jpg": "exit",
}
DIED = "the worker process died on this image"
MESSAGES = {
    "china/whole-000.jpg": f"{DIED} (SIGSEGV: segmentation fault)",
    "flower/left-000.jpg": f"{DIED} (SIGKILL: killed, most likely out of memory)",
    "china/left-090.jpg": "out of memory, with no other image at work",
    "broken.jpg": f"{DIED} (it ended without a word)",
}
FAILED = "SELECT filename, error FROM failures WHERE status = 'crashed' ORDER BY image_id"
COUNTS = "SELECT filename, status, error, n_descriptors, hash(descriptors) FROM extracted ORDER BY image_id"


def poisoned(poison: dict[str, str]) -> dict[str, str]:
    return {"PYTHONPATH": f"{SITE}:{ROOT}", "FEATURESTORE_TEST_POISON": json.dumps(poison)}


def test_only_the_images_that_kill_are_lost(ground: Ground, tmp_path: Path) -> None:
    path, environment = ground.store(tmp_path / "store"), poisoned(POISON)
    verb = ("run", path, "extract", "--workers", "2", *SILENT)
    # Even where the whole run is killed before the chunk is recorded: the next one comes through.
    assert sabotage(tmp_path / "log", ["written partitions/extract"], *verb, environment=environment).killed
    ended = run(*verb, **environment)
    assert (ended.code, ended.err) == (0, "")
    assert left_in_session(ended) == []
    assert "4 crashed" in ended.out
    store = FeatureStore(path)
    assert dict(store.sql(FAILED).fetchall()) == MESSAGES
    # Not one other image has suffered.
    whole = {row[0]: row for row in whole_store(ground).sql(COUNTS).fetchall()}
    assert [row for row in store.sql(COUNTS).fetchall() if row[0] not in POISON] == [
        row for name, row in whole.items() if name not in POISON
    ]
    assert "everything is up to date" in run(*verb, **environment).out  # and does not fall into the same hole
    store.run("extract", workers=0, retry_failed=["crashed"])
    assert store.sql(COUNTS).fetchall() == list(whole.values())
    assert photograph(path) == ground.extracted


@pytest.mark.parametrize("workers", ["1", "2"] if LONG else ["2"])  # two write pieces of one
def test_only_the_image_that_kills_is_lost_to_a_later_stage(ground: Ground, tmp_path: Path, workers: str) -> None:
    path = ground.store(tmp_path / "store", state="extracted")
    store = FeatureStore(path)
    store.run("fit_pca", workers=0)
    poison = {"project china/whole-000.jpg": "segfault", "project flower/left-000.jpg": "memory"}
    ended = run("run", path, *SILENT, "project", "--workers", workers, **poisoned(poison))
    assert (ended.code, ended.err) == (0, "")
    assert "2 crashed" in ended.out
    query = "SELECT filename, error, hash(descriptors) FROM projected ORDER BY image_id"
    whole = {row[0]: row for row in whole_store(ground).sql(query).fetchall()}
    lost = {name.removeprefix("project "): MESSAGES[name.removeprefix("project ")] for name in poison}
    lost["flower/left-000.jpg"] = "out of memory, with no other image at work"
    for row in store.sql(query).fetchall():
        assert row[1] == lost[row[0]] if row[0] in lost else row == whole[row[0]]
    assert not list(path.rglob(".tmp-*"))
    store.run("project", workers=0, retry_failed=["crashed"])
    store.run(workers=0)
    assert photograph(path) == ground.expected


def whole_store(ground: Ground) -> FeatureStore:
    return FeatureStore(ground.begun.with_name("whole"))


def test_workers_that_die_at_their_start_are_no_images_fault(ground: Ground, tmp_path: Path) -> None:
    path = ground.store(tmp_path / "store")
    ended = run("run", path, *SILENT, "extract", "--workers", "2", **poisoned({"start": "exit"}))
    assert ended.code == 1
    assert ended.err == (
        "error: the worker processes die before they get to work (it ended without a word), so no image is to blame. "
        "Finished work is kept; when the machine has memory and processes to spare, run the same command "
        "again, with fewer --workers or with --workers 0, which shows the error\n"
    )
    assert FeatureStore(path).sql("SELECT * FROM extracted").fetchall() == []
    FeatureStore(path).run("extract", workers=0)
    assert photograph(path) == ground.extracted


@dataclass(frozen=True)
class Work:
    """Says which process did it."""

    chunk_id: int

    def run(self) -> list[Row]:
        return [Row(self.chunk_id, str(os.getpid()), "ok")]

    def split(self) -> list[Task[Row]]:
        return [replace(self)]

    def crashed(self, reason: str) -> list[Row]:
        return [Row(self.chunk_id, "", "crashed", reason)]


def test_a_worker_that_dies_while_idle_costs_nothing() -> None:
    engine = LocalEngine(2)
    try:
        rows = [rows[0] for _, rows in dispatch_tasks(engine, map(Work, range(4)))]
        for pid in {int(row.filename) for row in rows}:
            os.kill(pid, signal.SIGKILL)
        again = [rows[0] for _, rows in dispatch_tasks(engine, map(Work, range(6)))]
    finally:
        engine.close()
    assert sorted((row.image_id, row.status) for row in again) == [(i, "ok") for i in range(6)]


class Look(Work):
    """A task that says which signals its worker has been started without, and what its C library was told."""

    def run(self) -> list[Row]:
        told = " ".join(os.environ[name] for name in sorted(KEEPING))
        return [Row(self.chunk_id, told, "ok", str(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))))]


# In a process of its own: only the first worker of a process is started after the trackers of its resources.
FIRST = """
from featurestore.engines.local import LocalEngine
from tests.crash.test_workers import Look

engine = LocalEngine(1)
(row,) = engine.submit(Look(0)).result()
print(row.error)
print(row.filename)
engine.close()
"""


def test_workers_ignore_signals_from_their_start_and_keep_memory_between_images() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(sorted(map(int, SIGNALS))), f"{128 << 20} {512 << 20} -1"]


class DeadEngine:
    """The task never runs."""

    workers = 2

    def __init__(self, *, says_so_at_once: bool) -> None:
        self.says_so_at_once, self.restarts = says_so_at_once, 0

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        if self.says_so_at_once:
            raise BrokenExecutor("A worker process managed by the executor was unexpectedly terminated. SIGTERM(-15)")
        future: Future[list[Any]] = Future()
        future.set_exception(BrokenExecutor("gone"))
        return future

    def restart(self) -> None:
        self.restarts += 1

    def close(self) -> None:
        """Nothing to end."""


@pytest.mark.parametrize("at_once", [True, False])
def test_an_engine_without_life_ends_the_run(at_once: bool) -> None:
    engine = DeadEngine(says_so_at_once=at_once)
    with pytest.raises(EngineLost, match="die before they get to work"):
        list(dispatch_tasks(engine, map(Work, range(100))))
    assert engine.restarts < 5


class Unstartable:
    """An executor on a machine that is full."""

    def submit(self, *_: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")


def test_no_room_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LocalEngine(3)
    monkeypatch.setattr(engine, "_open", Unstartable)
    with pytest.raises(EngineLost) as caught:
        engine.submit(Work(0))
    assert str(caught.value) == (
        "3 worker processes could not be started (Resource temporarily unavailable). Finished work is kept; "
        "run the same command again with fewer --workers, or with --workers 0"
    )


def feeders() -> set[threading.Thread]:
    """Return the threads of this process that feed workers."""
    return {thread for thread in threading.enumerate() if thread.name == "QueueFeederThread"}


@pytest.mark.parametrize("lacking", ["queue", "thread", "process"])
def test_workers_of_a_pool_that_can_not_be_started_are_ended(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    from joblib.externals.loky import process_executor
    from joblib.externals.loky.backend.process import LokyProcess

    start, started = LokyProcess.start, list[Any]()

    def start_one(process: Any) -> None:
        if started and lacking == "process":
            raise BlockingIOError(11, "Resource temporarily unavailable")
        start(process)
        started.append(process)

    def no_thread(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(LokyProcess, "start", start_one)
    kind = process_executor._SafeQueue if lacking == "queue" else process_executor._ExecutorManagerThread
    monkeypatch.setattr(kind, "_start_thread" if lacking == "queue" else "start", no_thread)
    before, engine = feeders(), LocalEngine(2)
    with pytest.raises(EngineLost, match="could not be started"):
        engine.submit(Work(0))
    engine.close()
    assert [process.exitcode for process in started] == [-signal.SIGKILL] * ["queue", "process", "thread"].index(
        lacking
    )
    for thread in feeders() - before:
        thread.join()
    monkeypatch.undo()
    (row,) = engine.submit(Work(0)).result()
    assert row.image_id == 0
    engine.close()
