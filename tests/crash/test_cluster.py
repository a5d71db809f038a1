"""A Dask cluster of real processes makes what one process makes, and says in one line why it can't."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from featurestore import FeatureStore
from featurestore.engines import dispatch_tasks
from featurestore.engines.dask import DaskEngine
from featurestore.errors import PluginError
from featurestore.testing.tasks import Squares
from tests.cluster import Cluster, cluster_of_processes
from tests.crash.conftest import Ground
from tests.crash.harness import Ended, left_alive, left_behind, photograph, run

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers, that live as long as this module's tests."""
    mark = uuid.uuid4().hex
    with cluster_of_processes(tmp_path_factory.mktemp("cluster"), n_workers=2, mark=mark) as cluster:
        yield cluster
    assert left_alive(mark) == []


def run_on(cluster: Cluster, store: Path, *arguments: str) -> Ended:
    ended = run("run", store, "--engine", "dask", "--scheduler", cluster.file, "--quiet", *arguments)
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    return ended


def test_a_cluster_makes_the_same_bytes(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    run_on(cluster, store)
    assert photograph(store) == ground.expected
    assert left_behind(store) == []


class Toy(Squares):
    """A task of a module that workers can load until the test changes its name."""


def test_a_module_that_workers_lack_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toy_of_this_process")
    module.Toy = Toy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Toy, "__module__", module.__name__)
    engine = DaskEngine(cluster.address)
    try:
        with pytest.raises(
            PluginError, match=r"No module named 'toy_of_this_process'\. Finished work is kept; install"
        ):
            list(dispatch_tasks(engine, [Toy((1,))]))
    finally:
        engine.close()


def test_a_cluster_is_checked_before_a_run(cluster: Cluster, ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    ended = run("cluster-check", store, "--scheduler", cluster.file)
    assert (ended.code, ended.err) == (0, ""), cluster.logs()
    workers, sample, left = ended.out.splitlines()
    assert re.fullmatch(r"2 workers with .+ of memory together: each has the versions, the store and the .+", workers)
    assert re.fullmatch(r"8 images at \d.* images/s", sample)
    assert re.fullmatch(r"extract would take about .+ for 26 images", left)
    assert FeatureStore(store).sql("SELECT * FROM runs").fetchall() == []
    assert left_behind(store) == []
