"""One writer, many readers: none fails, none waits long, and a second writer is told of the first."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from featurestore import FeatureStore
from tests.crash.conftest import Ground, ground
from tests.crash.harness import finish, photograph, run, sabotage, start

__all__ = ["ground"]
N_READERS = 2


def test_readers_beside_a_writer(ground: Ground, tmp_path: Path) -> None:
    path, stop = ground.store(tmp_path / "store"), tmp_path / "stop"
    readers = [start(path, stop, module="tests.reliability.reader") for _ in range(N_READERS)]
    ended = run("run", path, "--workers", "1", "--quiet")
    again = run("run", path, "--workers", "0", "--retry-failed", "--quiet")
    stop.touch()
    for reader in readers:
        read = finish(reader)
        assert (read.code, read.err) == (0, ""), read.err
        assert len(read.out.splitlines()) >= 2
    assert (ended.code, ended.err, again.code, again.err) == (0, "", 0, "")
    assert photograph(path) == ground.expected


def test_a_second_writer_is_told_who_is_at_work(ground: Ground, tmp_path: Path) -> None:
    path = ground.store(tmp_path / "store")
    first = start("run", path, "--workers", "0")
    deadline = time.monotonic() + 60
    while not (path / "run.lock.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    holder = json.loads((path / "run.lock.json").read_text())
    second = run("run", path, "--workers", "0")
    assert (holder["pid"], holder["host"]) == (first.pid, socket.gethostname())
    assert second.code == 1
    assert second.err == (
        f"error: {path} is in use by featurestore run (pid {first.pid} on {holder['host']}, since {holder['since']}); "
        "wait for it to end, or stop it\n"
    )
    assert finish(first).code == 0
    assert photograph(path) == ground.expected


def test_the_lock_of_a_dead_process_is_free(ground: Ground, tmp_path: Path) -> None:
    path = ground.store(tmp_path / "store")
    assert sabotage(tmp_path / "log", ["published partitions/extract"], "run", path, "--workers", "0").killed
    dead = json.loads((path / "run.lock.json").read_text())
    assert dead["verb"] == "run"
    store = FeatureStore(path)
    assert store.status().holder is None
    store.run("extract", workers=0)
    outcomes = store.sql("SELECT pid, outcome FROM runs ORDER BY started").fetchall()
    assert outcomes == [(dead["pid"], "killed"), (os.getpid(), "done")]
