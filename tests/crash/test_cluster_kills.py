"""Nothing is lost on a cluster: workers, their children, the scheduler and the run itself are killed."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore import FeatureStore
from tests.cluster import Cluster, cluster_of_processes, kill
from tests.crash.conftest import Ground
from tests.crash.harness import PATIENCE, finish, left_alive, left_behind, photograph, run, runs, sabotage, start
from tests.crash.test_workers import COUNTS, FAILED, MESSAGES, POISON, poisoned, whole_store

pytestmark = pytest.mark.cluster
# `make test-cluster` kills workers and their children; the rest takes a quarter of a minute each.
in_crash = pytest.mark.skipif("FEATURESTORE_KILLS" not in os.environ, reason="make crash runs it")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler and two workers, of which the test may kill any."""
    mark = uuid.uuid4().hex
    with cluster_of_processes(tmp_path / "cluster", n_workers=2, mark=mark) as cluster:
        yield cluster
    assert left_alive(mark) == []


def verb(cluster: Cluster, store: Path) -> tuple[str | Path, ...]:
    return ("run", store, "--quiet", "--engine", "dask", "--scheduler", cluster.file)


def wait_for(store: Path, pattern: str) -> None:
    """Wait until the store has such a file."""
    deadline = time.monotonic() + PATIENCE
    while not any(store.glob(pattern)):
        assert time.monotonic() < deadline, pattern
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """Return the processes of a slot of a worker."""
    path = Path(f"/proc/{pid}/task")
    found = [int(child) for task in path.iterdir() for child in (task / "children").read_text().split()]
    return [pid for pid in found if b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_workers_and_their_children_are_killed(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    process = start(*verb(cluster, store))
    _, first, second = cluster.processes
    wait_for(store, "blocks/extract/*/*/*.parquet")
    for child in children_of(first.pid):
        os.kill(child, signal.SIGKILL)
    kill(second)
    third = cluster.start_worker()
    wait_for(store, "partitions/extract/*/*.parquet")
    kill(first)
    cluster.start_worker()
    wait_for(store, "partitions/project/*/*.parquet")
    kill(third)
    ended = finish(process)
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    assert photograph(store) == ground.expected
    assert left_behind(store) == []


@in_crash
def test_a_scheduler_that_dies_ends_the_run_in_one_line(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    process = start(*verb(cluster, store))
    wait_for(store, "blocks/extract/*/*/*.parquet")
    address = cluster.file
    kill(cluster.processes[0])
    ended = finish(process)
    assert ended.code == 1
    assert ended.err == (
        f"error: the Dask scheduler at {address} is gone. Finished work is kept; start a scheduler and workers, then "
        "run the same command again\n"
    )
    assert list(store.rglob(".tmp-*")) == [], "what workers were writing"
    for worker in cluster.processes[1:]:
        worker.wait(PATIENCE)  # a worker ends by itself, and its child with it
    assert list(store.rglob(".tmp-*")) == []
    cluster.start_scheduler()
    cluster.start_worker()
    ended = run(*verb(cluster, store))
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    assert photograph(store) == ground.expected
    assert left_behind(store) == []


@in_crash
def test_a_run_is_stopped_and_killed_and_goes_on(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    store, log = ground.store(tmp_path / "store"), tmp_path / "log"
    ended = sabotage(log, ["published blocks/extract"], *verb(cluster, store), signal="SIGINT")
    assert ended.code == 130, ended
    assert ended.err.strip() == f"stopped; finished work is kept. To continue: featurestore run {store}"
    assert list(store.rglob(".tmp-*")) == []
    for point in ("published blocks/extract", "written partitions/extract", "published partitions/project"):
        assert sabotage(log, [point], *verb(cluster, store)).killed, point
    ended = run(*verb(cluster, store))  # at once, while workers may still be at work for the one before
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    assert [record["outcome"] for record in runs(store)][:2] == ["interrupted", "killed"]
    assert photograph(store) == ground.expected
    assert left_behind(store) == []


@in_crash
def test_images_that_kill_cost_no_worker(ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    with cluster_of_processes(tmp_path / "cluster", n_workers=0) as cluster:
        workers = [cluster.start_worker(**poisoned(POISON)) for _ in range(2)]
        ended = run(*verb(cluster, store), "extract")
        assert [worker.poll() for worker in workers] == [None, None]
    assert (ended.code, ended.err) == (0, "")
    opened = FeatureStore(store)
    assert dict(opened.sql(FAILED).fetchall()) == MESSAGES
    whole = [row for row in whole_store(ground).sql(COUNTS).fetchall() if row[0] not in POISON]
    assert [row for row in opened.sql(COUNTS).fetchall() if row[0] not in POISON] == whole
