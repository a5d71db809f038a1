"""Every engine keeps to the contract."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from featurestore.engines import Engine, dispatch_tasks, open_engine
from featurestore.engines.dask import DaskEngine
from featurestore.engines.inline import InlineEngine
from featurestore.engines.local import LocalEngine
from featurestore.engines.registry import ENGINES
from featurestore.errors import ConfigError
from featurestore.testing import EngineContract
from featurestore.testing.tasks import Squares
from tests.cluster import cluster_of_threads
from tests.conftest import LONG

ON_CLUSTER = pytest.param(("dask", 2), marks=pytest.mark.cluster)


# One engine for all of its tests: each begins with what the last one left, workers that run or a closed engine.
@pytest.fixture(
    scope="module", params=[("inline", 0), ("local", 2), ON_CLUSTER, *([("local", 1)] if LONG else [])], ids=str
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    name, workers = request.param
    with cluster_of_threads(workers) if name == "dask" else nullcontext() as scheduler:
        engine = open_engine(workers, name, scheduler=scheduler)
        yield engine
        engine.close()


class TestEngine(EngineContract):
    @pytest.fixture
    def engine(self, engine: Engine) -> Engine:
        return engine

    @pytest.fixture(autouse=True)
    def short(self, engine: Engine, request: pytest.FixtureRequest) -> None:
        # A cluster tries it on three workers, with nine children in all, and each of these does what `local` does.
        if "no_image_takes_away" in request.node.name and isinstance(engine, DaskEngine) and not LONG:
            pytest.skip("on a cluster it takes half a minute: FEATURESTORE_TESTS=long")


def test_work_is_done_where_the_engine_says(engine: Engine) -> None:
    pids = {int(rows[0].filename) for _, rows in dispatch_tasks(engine, [Squares((i,)) for i in range(8)])}
    assert (os.getpid() in pids) == (engine.workers == 0)
    assert 1 <= len(pids) <= max(engine.workers, 1)


def test_a_cluster_does_its_work() -> None:
    """What `make test` sees of a cluster."""
    with cluster_of_threads(1) as scheduler:
        engine = open_engine(1, "dask", scheduler=scheduler)
        assert [row.error for _, rows in dispatch_tasks(engine, [Squares((1, 2))]) for row in rows] == ["1", "4"]
        engine.close()


def test_the_number_of_workers_chooses_the_engine() -> None:
    assert isinstance(open_engine(0), InlineEngine)
    engine = open_engine(3)
    assert isinstance(engine, LocalEngine)
    assert engine.workers == 3


def test_an_engine_is_chosen_by_its_name() -> None:
    assert ENGINES.names()[:3] == ("inline", "local", "dask")
    assert open_engine(3, "inline").workers == 0
    with pytest.raises(ConfigError, match=r"^there is no engine 'ray'; the engines are inline, local, dask"):
        open_engine(3, "ray")
    with pytest.raises(ConfigError, match=r"^the engine local needs a worker at least; give --workers 1 or more"):
        open_engine(0, "local")
