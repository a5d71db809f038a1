"""The engine of a Dask cluster says in one line why it can't work, and leaves nothing running."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.catalog import RunningStage
from featurestore.engines import dask, open_engine
from featurestore.engines.dask import DaskEngine
from featurestore.errors import ConfigError, EngineLost, MissingDependency
from featurestore.pipeline import Options, run_stages
from featurestore.progress import Silent
from featurestore.testing.tasks import Squares
from tests.cluster import cluster_of_threads
from tests.small import digests, invoke, make_small, small_store


def loops() -> int:
    """Return how many threads of this process run clients and servers of Dask."""
    return [thread.name for thread in threading.enumerate()].count("IO loop")


def test_a_scheduler_is_asked_for_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"^the engine dask needs the address of a scheduler: give --scheduler tcp:"):
        open_engine(2, "dask")


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependency, match=r"pip install 'featurestore\[dask\]'$"):
        DaskEngine("tcp://127.0.0.1:8786")


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:1", "nonsense://x", "tcp://127.0.0.1"])
def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, scheduler: str) -> None:
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 0.2)
    before = loops()
    with pytest.raises(EngineLost, match=rf"^no Dask scheduler was reached at {scheduler} \(.+\); start one with"):
        DaskEngine(scheduler).submit(Squares((1,)))
    assert loops() == before  # a client that is left to the garbage collector may stop the next one


@pytest.mark.parametrize("scheme", ["", "tcp://"])
def test_a_server_that_is_no_scheduler(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 0.2)
    before = loops()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineLost, match=rf"at {address} \(what listens there does not answer as one\); start one"):
            DaskEngine(address).submit(Squares((1,)))
    assert loops() == before


@pytest.mark.parametrize("text", [None, "", "{}", "[1]"])
def test_a_file_without_a_scheduler(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "scheduler.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(EngineLost, match=r"scheduler\.json does not hold the address of a Dask scheduler; start one"):
        DaskEngine(str(path)).submit(Squares((1,)))


@pytest.mark.cluster
def test_a_cluster_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "PATIENCE", 0.0)
    with cluster_of_threads(0) as address:
        engine = DaskEngine(address)
        with pytest.raises(EngineLost, match=rf"^the Dask scheduler at {address} has had no worker for 0 s\. Finished"):
            engine.submit(Squares((1,)))
        engine.close()


def test_workers_are_the_clusters_own(tmp_path: Path) -> None:
    done = invoke("run", tmp_path, "--engine", "dask", "--workers", "2")
    assert "--workers is for this machine" in done.output
    done = invoke("run", tmp_path, "--scheduler", "tcp://h:1", "--engine", "dask", "--workers", "2")
    assert "--workers is for this machine" in done.output
    store = FeatureStore.create(tmp_path / "s", images=tmp_path, dataset=make_small(tmp_path, n=2))
    with pytest.raises(ConfigError, match=r"^the engine dask has the workers of its cluster; leave out the number"):
        store.run(engine="dask", workers=2)
    with pytest.raises(ConfigError, match=r"^the engine inline has no scheduler; leave out --scheduler, or give"):
        store.run(engine="inline", scheduler="tcp://h:1")


class Cancelled:
    """A future of Dask that was cancelled."""

    def result(self, timeout: float) -> None:
        """Fail: a process that ends while it asks prints a traceback of asyncio."""
        pytest.fail("the result is asked for")


def test_a_closed_engine_does_not_ask_for_results() -> None:
    flown = dask._Flown(Squares((1,)))
    DaskEngine("tcp://127.0.0.1:1")._take(flown, Cancelled())
    assert not flown.future.done()


class Looking(Silent):
    """Adds up the images of each stage, and looks at `status` whenever extract has done some, and at each end."""

    def __init__(self, store: FeatureStore) -> None:
        self.images: dict[str, list[int]] = {}  # by stage: announced, and done
        self.seen: list[RunningStage | None] = []
        self._store = store

    def begin(self, stage: str, n_images: int) -> None:
        self._stage, self._now = stage, [n_images, 0]
        self.images[stage] = self._now

    def advance(self, n_images: int) -> None:
        self._now[1] += n_images
        if self._stage == "extract" or self._now[1] == self._now[0]:
            self.seen.append(self._store.status().running)


@pytest.mark.cluster
def test_a_run_on_a_cluster_makes_the_same_bytes_and_shows_how_far_it_is(tmp_path: Path) -> None:
    make_small(tmp_path / "images", n=7)
    alone, store = (small_store(tmp_path / name, tmp_path / "images", chunk_size=3) for name in ("alone", "store"))
    alone.run(workers=0)
    looking = Looking(store)
    with cluster_of_threads(2) as address:
        with store._changing("run", looking) as context:
            done = run_stages(context, Options(scheduler=address))
        assert store.run(scheduler="tcp://127.0.0.1:1") == [], "without work no cluster is needed"
    assert [summary.n_chunks for summary in done if summary.stage == "extract"] == [3]
    assert digests(store) == digests(alone)
    assert store.sql("SELECT DISTINCT workers FROM runs WHERE stage = 'extract'").fetchall() == [(2,)]
    assert list(looking.images) == ["extract", "fit_pca", "project", "fit_scale", "quantize"]
    assert all(images == [7, 7] for images in looking.images.values())
    of_extract = [seen.n_done for seen in looking.seen if seen is not None and seen.stage == "extract"]
    assert of_extract == sorted(of_extract)
    assert of_extract[-1] == 7
    assert len(of_extract) >= 3, "a chunk is seen before it is published"
