"""Fits whose chunks are learnt side by side give the same model, whichever worker learns which chunk, in any order."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.engines import Task
from featurestore.engines.inline import InlineEngine
from featurestore.errors import EngineLost
from featurestore.pipeline import Options, fit_run, run_stages
from featurestore.pipeline.runner import run_each
from featurestore.pipeline.tasks import FitChunk, Learnt
from tests.small import StopAfter, configure, context_of, copy, current_model, make_small, small_store


class Backwards(InlineEngine):
    """Says of two tasks that the later one was done first."""

    workers = 1

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[list[Any]], list[Any]]] = []
        self.learnt: list[int] = []

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        future: Future[list[Any]] = Future()
        self.waiting.append((future, task.run()))
        self.learnt.append(task.chunk_id)
        if len(self.waiting) == 2 or task.chunk_id == 4:  # the last of five chunks comes alone
            while self.waiting:
                done, results = self.waiting.pop()
                done.set_result(results)
        return future


class Dying(InlineEngine):
    """Loses its worker whenever it learns from chunk 2."""

    workers = 1

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        if task.chunk_id != 2:
            return super().submit(task)
        future: Future[list[Any]] = Future()
        future.set_exception(BrokenExecutor("terminated abruptly {SIGSEGV(-11)}"))
        return future


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Thirteen small pictures in five chunks, of RootSIFT: sums of its fractions depend on their order."""
    folder = tmp_path_factory.mktemp("side-by-side")
    make_small(folder / "images")
    store = small_store(folder / "store", folder / "images", chunk_size=3)
    configure(store, "extract", extractor="rootsift")
    configure(store, "fit_pca", solver="covariance")
    store.run("extract", workers=0)
    return store


@pytest.fixture
def store(extracted: FeatureStore, tmp_path: Path) -> FeatureStore:
    return copy(extracted, tmp_path / "store")


@pytest.fixture(scope="module")
def expected(extracted: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model of an uninterrupted fit."""
    alone = copy(extracted, tmp_path_factory.mktemp("alone") / "store")
    alone.run("fit_pca", workers=0)
    return str(current_model(alone, "fit_pca").model_id)


def test_what_is_done_first_changes_nothing(store: FeatureStore, expected: str) -> None:
    engine = Backwards()
    run_each(context_of(store), engine, Options(stages=("fit_pca",)), ["fit_pca"])
    assert engine.learnt == [0, 1, 2, 3, 4]
    assert current_model(store, "fit_pca").model_id == expected


def test_workers_change_nothing(store: FeatureStore, expected: str) -> None:
    store.run("fit_pca", workers=2)
    assert current_model(store, "fit_pca").model_id == expected
    assert store.sql("SELECT workers FROM runs WHERE stage = 'fit_pca'").fetchall() == [(2,)]
    store.run("project", "fit_scale", workers=2)
    assert store.sql("SELECT workers FROM runs WHERE stage = 'fit_scale'").fetchall() == [(2,)]


@pytest.mark.parametrize("n_chunks", [1, 2, 4])
def test_a_killed_fit_goes_on_where_it_was(store: FeatureStore, expected: str, n_chunks: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_stages(context_of(store, StopAfter(n_chunks)), Options(stages=("fit_pca",), workers=0))
    (state,) = store.path.glob("models/fit_pca/*/state.npz")
    assert state.is_file()
    engine = Backwards()
    run_each(context_of(store), engine, Options(stages=("fit_pca",)), ["fit_pca"])
    assert engine.learnt == list(range(n_chunks, 5))
    assert current_model(store, "fit_pca").model_id == expected


def test_a_worker_that_dies_of_a_chunk_ends_the_fit_and_keeps_what_was_learnt(
    store: FeatureStore, expected: str
) -> None:
    with pytest.raises(EngineLost) as caught:
        run_each(context_of(store), Dying(), Options(stages=("fit_pca",)), ["fit_pca"])
    assert str(caught.value) == (
        "fit_pca needs chunk 2, and the worker process died on it (SIGSEGV: segmentation fault). What was learnt is "
        "kept; run the same command again with fewer --workers, or with --workers 0"
    )
    engine = Backwards()
    run_each(context_of(store), engine, Options(stages=("fit_pca",)), ["fit_pca"])
    assert engine.learnt == [2, 3, 4]
    assert current_model(store, "fit_pca").model_id == expected


class SlowFirst(InlineEngine):
    """Finishes chunk 0 when it is told to, and with the last chunk at the latest."""

    workers = 1

    def __init__(self) -> None:
        self.first: Future[list[Any]] = Future()
        self.learnt: list[int] = []

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        self.learnt.append(task.chunk_id)
        if task.chunk_id == 0:
            self.results = task.run()
            return self.first
        if task.chunk_id == 4:
            self.finish()
        return super().submit(task)

    def finish(self) -> None:
        if not self.first.done():
            self.first.set_result(self.results)


def test_what_waits_for_a_slow_chunk_is_bounded_by_its_bytes(
    store: FeatureStore, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, held, learnt_before = SlowFirst(), list[Learnt](), list[int]()
    n_bytes = vars(Learnt)["n_bytes"].fget

    def noted(learnt: Learnt) -> int:
        if not any(learnt is other for other in held):
            held.append(learnt)
        if len(held) == 2 and not engine.first.done():  # no other chunk is at work
            learnt_before.extend(engine.learnt)
            engine.finish()
        return int(n_bytes(learnt))

    monkeypatch.setattr(Learnt, "n_bytes", property(noted))
    monkeypatch.setattr(fit_run, "HELD_BYTES", 1)
    run_each(context_of(store), engine, Options(stages=("fit_pca",)), ["fit_pca"])
    assert learnt_before == [0, 1, 2]
    assert current_model(store, "fit_pca").model_id == expected


def test_a_chunk_is_not_taken_apart(store: FeatureStore) -> None:
    task = FitChunk(context_of(store).flow[1], 0, Path("x"), frozenset())  # type: ignore[arg-type]
    assert task.split() == [task]
