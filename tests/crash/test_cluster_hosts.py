"""Nothing is lost on a cluster of many hosts: many kills, a suspended worker, two runs at once, workers that differ.

All of them are processes of this machine. Each test takes up to a minute, so that only `make crash` runs them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.storage import HOLDER
from tests.cluster import Cluster, cluster_of_processes, kill
from tests.crash.conftest import Ground
from tests.crash.harness import ROOT, finish, left_alive, left_behind, photograph, run, runs, start
from tests.crash.test_cluster_kills import children_of, in_crash, verb, wait_for
from tests.small import make_small, small_store

pytestmark = [pytest.mark.cluster, in_crash]
KILLS = 20
TTL = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "4s"}  # after which a silent worker is taken for dead


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler that soon gives up a silent worker, and two workers."""
    mark = uuid.uuid4().hex
    with cluster_of_processes(tmp_path / "cluster", n_workers=2, mark=mark, **TTL) as cluster:
        yield cluster
    assert left_alive(mark) == []


def refuse_difference(store: Path, ground: Ground) -> None:
    """Check that a finished store is that of one process, and that nothing else is in it."""
    assert photograph(store) == ground.expected
    assert left_behind(store) == []


def test_twenty_kills(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    """Of workers with all that they have, and of the children of a worker."""
    rng, workers, n_kills, n_runs = random.Random(os.environ.get("FEATURESTORE_KILL_SEED")), cluster.processes[1:], 0, 0
    while n_kills < KILLS:
        store = ground.store(tmp_path / f"store-{n_runs}")
        process = start(*verb(cluster, store))
        while n_kills < KILLS:
            try:
                ended = finish(process, patience=rng.uniform(0.5, 2.0))
                break
            except TimeoutError:
                victim = rng.randrange(len(workers))
            n_kills += 1
            if n_kills % 5 == 0 and (children := children_of(workers[victim].pid)):
                os.kill(children[0], signal.SIGKILL)
            else:
                kill(workers[victim])
                workers[victim] = cluster.start_worker()
        else:
            ended = finish(process)
        assert (ended.code, ended.err) == (0, ""), cluster.logs()
        refuse_difference(store, ground)
        n_runs += 1
    print(f"{n_kills} kills in {n_runs} runs")


def test_twenty_kills_in_one_run(cluster: Cluster, tmp_path: Path) -> None:
    """A worker or a child is killed whenever another file has been finished: forty chunks have 120 partitions."""
    images, workers = make_small(tmp_path / "images", n=40).parent, cluster.processes[1:]
    store = small_store(tmp_path / "store", images, chunk_size=1).path
    FeatureStore(shutil.copytree(store, tmp_path / "whole")).run(workers=0)
    process, n_kills, n_files = start(*verb(cluster, store)), 0, 0
    while n_kills < KILLS:
        while len(list(store.rglob("chunk-*.parquet"))) <= n_files:
            with suppress(TimeoutError):
                pytest.fail(f"after {n_kills} kills: {finish(process, patience=0.02)}")
        n_files = len(list(store.rglob("chunk-*.parquet")))
        victim = n_kills % 2
        if n_kills % 5 == 4 and (children := children_of(workers[victim].pid)):
            os.kill(children[0], signal.SIGKILL)
        else:
            kill(workers[victim])
            workers[victim] = cluster.start_worker()
        n_kills += 1
    ended = finish(process)
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    assert photograph(store) == photograph(tmp_path / "whole")
    assert left_behind(store) == []
    assert {record["outcome"] for record in runs(store)} == {"done"}


def test_workers_that_leave_in_order_cost_nothing(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    """One is sent away by the scheduler, as where a cluster shrinks, and one ends by SIGTERM, as a job does."""
    store = ground.store(tmp_path / "store")
    process = start(*verb(cluster, store))
    _, first, second = cluster.processes
    wait_for(store, "blocks/extract/*/*/*.parquet")
    cluster.start_worker()
    wait_for_workers(cluster, 3)
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        address = next(a for a, pid in client.run(os.getpid).items() if pid == first.pid)
        client.retire_workers([address])
    os.kill(second.pid, signal.SIGTERM)
    ended = finish(process)
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    for worker in (first, second):
        worker.wait(60)
    refuse_difference(store, ground)


def test_a_run_whose_workers_are_all_gone_ends_and_goes_on(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    process = start(*verb(cluster, store))
    wait_for(store, "blocks/extract/*/*/*.parquet")
    for worker in cluster.processes[1:]:
        kill(worker)
    ended = finish(process)
    assert ended.code == 1
    assert ended.err.startswith(
        f"error: the Dask scheduler at {cluster.file} has had no worker for 60 s. Finished work"
    )
    assert list(store.rglob(".tmp-*")) == [], "what workers were writing"
    cluster.start_worker()
    ended = run(*verb(cluster, store))
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    refuse_difference(store, ground)


def test_a_suspended_worker_that_wakes_after_the_run_changes_nothing(
    cluster: Cluster, ground: Ground, tmp_path: Path
) -> None:
    store = ground.store(tmp_path / "store")
    process = start(*verb(cluster, store))
    zombie = cluster.processes[1]
    wait_for(store, "blocks/extract/*/*/*.parquet")
    os.killpg(zombie.pid, signal.SIGSTOP)
    ended = finish(process)
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    os.killpg(zombie.pid, signal.SIGCONT)
    zombie.wait(60)  # the scheduler no longer knows it
    refuse_difference(store, ground)


def test_a_second_run_is_told_of_the_first(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    process = start(*verb(cluster, store))
    wait_for(store, "blocks/extract/*/*/*.parquet")
    second = run(*verb(cluster, store))
    assert second.code == 1
    assert second.err.startswith(f"error: {store} is in use by featurestore run (pid ")
    ended = finish(process)
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    refuse_difference(store, ground)


def test_two_runs_that_see_each_others_locks_too_late(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    """As on a file system without locks between machines, where the second takes the first for dead."""
    store = ground.store(tmp_path / "store")
    first = start(*verb(cluster, store))
    wait_for(store, "blocks/extract/*/*/*.parquet")
    (store / "run.lock").unlink()
    second = finish(start(*verb(cluster, store)))
    ended = finish(first)
    assert (second.code, second.err) == (0, ""), cluster.logs()
    assert ended.code == 1
    assert ended.err.startswith(f"error: {store} was taken over by featurestore run (pid ") or HOLDER in ended.err
    refuse_difference(store, ground)


def without(folder: Path, there: Path) -> list[str]:
    """Return the command for a process that sees another folder in the place of one."""
    return ["unshare", "--mount", "sh", "-c", f'mount --bind "{there}" "{folder}" && exec "$@"', "sh"]


def another_opencv(folder: Path) -> dict[str, str]:
    """Return the environment of a process that has another version of OpenCV installed, as far as it can see."""
    found = folder / "opencv_python_headless-4.1.0.dist-info" / "METADATA"
    found.parent.mkdir(parents=True)
    found.write_text("Metadata-Version: 2.1\nName: opencv-python-headless\nVersion: 4.1.0\n")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


@dataclass(frozen=True)
class Misfits:
    """Workers that differ.

    One has an empty folder in place of the images, one in place of the store, one has no such folder as the store, and
    one has another OpenCV.
    """

    store: Path
    images: Path
    empty: Path  # a folder
    opencv: dict[str, str]  # environment

    def start(self, cluster: Cluster) -> list[subprocess.Popen[bytes]]:
        """Start them."""
        return [
            cluster.start_worker(within=without(self.images, self.empty)),
            cluster.start_worker(within=without(self.store, self.empty)),
            cluster.start_worker(within=without(self.store.parent, self.empty)),
            cluster.start_worker(**self.opencv),
        ]

    reasons = ("does not see the image", "does not see that this run holds", "has opencv-python-headless 4.1.0")


@pytest.fixture
def misfits(ground: Ground, tmp_path: Path) -> Misfits:
    """Workers that differ, and a new store."""
    store, empty = ground.store(tmp_path / "mount" / "store"), tmp_path / "empty"
    empty.mkdir()
    if subprocess.run([*without(store, empty), "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a folder in a namespace")
    return Misfits(store, ground.images, empty, another_opencv(tmp_path / "opencv"))


def test_workers_that_differ_at_the_start_end_the_run(misfits: Misfits, tmp_path: Path) -> None:
    with cluster_of_processes(tmp_path / "cluster", n_workers=0) as cluster:
        misfits.start(cluster)
        wait_for_workers(cluster, 4)
        ended = run(*verb(cluster, misfits.store))
    assert ended.code == 1, ended
    assert all(reason in ended.err for reason in misfits.reasons), ended.err
    assert FeatureStore(misfits.store).sql("SELECT * FROM partitions").fetchall() == []
    assert left_behind(misfits.store) == []


def test_workers_that_differ_and_come_late_do_no_work(misfits: Misfits, ground: Ground, tmp_path: Path) -> None:
    with cluster_of_processes(tmp_path / "cluster", n_workers=1) as cluster:
        process = start("run", misfits.store, "--progress", "none", "--engine", "dask", "--scheduler", cluster.file)
        wait_for(misfits.store, "blocks/extract/*/*/*.parquet")
        os.killpg(cluster.processes[1].pid, signal.SIGSTOP)  # so that the others come before the end
        late = misfits.start(cluster)
        wait_for_workers(cluster, 5)
        os.killpg(cluster.processes[1].pid, signal.SIGCONT)
        ended = finish(process)
        for worker in late:
            worker.wait(60)  # it was told to leave
    assert ended.code == 0, ended
    assert len(ended.err.splitlines()) == 4, ended.err
    assert all(f" is not used: it {reason}" in ended.err for reason in misfits.reasons), ended.err
    refuse_difference(misfits.store, ground)


def wait_for_workers(cluster: Cluster, n: int) -> None:
    """Wait until the scheduler knows so many workers."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(n, timeout=60)
