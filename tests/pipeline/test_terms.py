"""A worker elsewhere works for a run only with the same versions, in the same store, on the same images."""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.catalog import store_terms, terms_for_reading, versions
from featurestore.engines import dask, dispatch_tasks, slot
from featurestore.engines.dask import DaskEngine
from featurestore.errors import EngineLost, WorkerUnfit
from featurestore.pipeline import runner
from featurestore.pipeline.terms import RunTerms, agreed_terms
from featurestore.progress import Silent
from featurestore.rows import Row
from featurestore.storage import HOLDER, Root
from featurestore.testing.tasks import Squares
from tests.cluster import cluster_of_threads
from tests.small import Listening, configure, copy, make_small, small_store


class Noting(DaskEngine):
    """An engine that only takes the terms."""

    def agree(self, terms: RunTerms, **_: object) -> None:  # type: ignore[override]
        self.found = terms


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store in which nothing was run, and the images beside it. Not to be changed: see `own`."""
    folder = tmp_path_factory.mktemp("terms")
    make_small(folder / "images", n=3, size=(80, 60))
    store = small_store(folder / "store", folder / "images")
    configure(store, "store", images="../images", dataset="../images/dataset.csv")
    return store


@pytest.fixture
def own(begun: FeatureStore, tmp_path: Path) -> FeatureStore:
    """Such a store, which the test may change, as it may the images."""
    shutil.copytree(begun.path.with_name("images"), tmp_path / "images")
    return copy(begun, tmp_path / "store")


@pytest.fixture
def terms(own: FeatureStore, tmp_path: Path) -> Iterator[RunTerms]:
    """The terms of a run that holds a store."""
    (tmp_path / "images" / "000.png").unlink()
    engine = Noting("tcp://127.0.0.1:1")
    with own._held("run", Silent()) as context, agreed_terms(engine, context):
        yield engine.found


def test_the_process_of_the_run_meets_them(terms: RunTerms) -> None:
    assert terms.misfit() is None
    assert not terms.is_over()
    assert terms.sample is not None
    assert terms.sample[0] == "001.png", "the first that is there"


def test_other_versions(terms: RunTerms) -> None:
    other = replace(terms, versions={**terms.versions, "numpy": "1.0"})
    assert str(other.misfit()).startswith("has numpy ")
    assert str(other.misfit()).endswith(" instead of 1.0")
    assert replace(terms, versions={"featureless": "2"}).misfit() == "has featureless not installed instead of 2"


def test_another_folder_than_the_store(terms: RunTerms, tmp_path: Path) -> None:
    empty = replace(terms, root=Root(tmp_path / "empty"))
    assert str(empty.misfit()).startswith(f"does not see that this run holds {tmp_path / 'empty'} (run.lock.json): the")
    assert empty.is_over()


def test_other_images(terms: RunTerms, tmp_path: Path) -> None:
    assert replace(terms, images=str(tmp_path / "gone")).misfit() == f"has no folder {tmp_path / 'gone'}"
    (tmp_path / "mount").mkdir()
    misfit = str(replace(terms, images=str(tmp_path / "mount")).misfit())
    assert misfit.startswith(f"does not see the image {tmp_path / 'mount' / '001.png'} as it is here: another folder")
    shutil.copy(tmp_path / "images" / "002.png", tmp_path / "mount" / "001.png")
    assert str(replace(terms, images=str(tmp_path / "mount")).misfit()) == misfit
    assert replace(terms, images=str(tmp_path / "gone"), sample=None).misfit() is None, (
        "a run that sees no images either"
    )


def test_a_verb_that_only_reads_asks_for_the_recipe_of_what_it_reads(
    terms: RunTerms, begun: FeatureStore, tmp_path: Path
) -> None:
    other = copy(begun, tmp_path / "other")
    reads = terms_for_reading(terms.root, Root(other.path))
    assert (reads.misfit(), reads.is_over()) == (None, False)
    (other.path / "featurestore.toml").write_text("")
    assert str(reads.misfit()).startswith(
        f"does not see {other.path / 'featurestore.toml'} as it is here: the store is"
    )
    shutil.rmtree(other.path)
    assert str(reads.misfit()).startswith(
        f"does not see {other.path / 'featurestore.toml'} as it is here: the store is"
    )
    assert str(replace(reads, root=Root(other.path)).misfit()).startswith("does not see that this run holds")
    assert not replace(reads, token=None).is_over(), "a store that this user may not write has no signature"


def test_a_run_that_was_taken_over_is_over(terms: RunTerms) -> None:
    path = terms.root.local(HOLDER)
    before = path.read_text()
    path.write_text(path.read_text().replace(str(terms.token), "0" * 16))
    assert terms.is_over()
    path.write_text(before)
    assert not terms.is_over()


def test_a_run_that_has_ended_is_over_although_its_process_still_holds_the_store(terms: RunTerms) -> None:
    terms.sign.unlink()
    assert terms.is_over()


class Losing(Noting):
    """An engine that is lost at the first task, and notes whether the run is over when it is closed."""

    workers = 1
    was_over = False

    def submit(self, task: object) -> Any:
        assert not self.found.is_over()
        raise EngineLost("the scheduler is gone")

    def memory(self) -> None:
        return None

    def close(self) -> None:
        self.was_over = self.found.is_over()


def test_a_run_that_loses_its_cluster_is_over_before_it_waits_for_the_workers(
    own: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Losing("tcp://127.0.0.1:1")
    monkeypatch.setattr(runner, "open_engine", lambda *_, **__: engine)
    with pytest.raises(EngineLost):
        own.run("extract", scheduler="tcp://127.0.0.1:1")
    assert engine.was_over
    assert not list(own.path.rglob(".tmp-*"))


@pytest.mark.cluster
def test_no_worker_is_let_in_at_the_start_that_does_not_meet_them(
    own: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_terms, "versions", lambda: {**versions(), "numpy": "1.0"})  # as a worker has them
    with (
        cluster_of_threads(2) as address,
        pytest.raises(WorkerUnfit, match=r"^(the worker inproc://\S+ has numpy 1\.0 instead of \S+[;.] ){2}Nothing"),
    ):
        own.run(engine="dask", scheduler=address)
    assert own.sql("SELECT count(*) FROM partitions").fetchall() == [(0,)]


@dataclass(frozen=True)
class FromFile:
    """Terms that are told by files: a worker's misfit, and whether the run is over."""

    folder: Path

    def misfit(self) -> str | None:
        return "is late" if (self.folder / "misfit").exists() else None

    def is_over(self) -> bool:
        return (self.folder / "over").exists()


@pytest.mark.cluster
def test_a_late_worker_that_does_not_meet_them_leaves_and_the_run_goes_on(tmp_path: Path) -> None:
    said = Listening()
    with cluster_of_threads(1) as address:
        engine = DaskEngine(address)
        engine.agree(FromFile(tmp_path), say=said.say)
        assert engine.workers == 1
        (tmp_path / "misfit").touch()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dask, "PATIENCE", 0.5)
            patch.setattr(dask, "NOTICE_SECONDS", 0.0)
            with pytest.raises(EngineLost, match=r"no worker for 0 s, and inproc://\S+ is not used, since it is late"):
                list(dispatch_tasks(engine, [Squares((1,)), Squares((2,))]))
            engine.close()
    (line,) = said.said
    assert line.startswith("the worker inproc://")
    assert line.endswith(" is not used: it is late")


@dataclass(frozen=True)
class Endless(Squares):
    """A task that begins, and does not end by itself."""

    begun: str = ""

    def run(self) -> list[Row]:
        Path(self.begun).touch()
        threading.Event().wait()
        return []


def test_what_is_done_for_a_run_that_is_over_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "WATCH_SECONDS", 0.05)
    begun = tmp_path / "begun"

    class Terms(FromFile):
        def is_over(self) -> bool:
            return begun.exists()

    report = slot.run_in_slot("a run", Endless((1,), begun=str(begun)), Terms(tmp_path))
    assert str(report.error) == "the run that this task is part of has ended"
    report = slot.run_in_slot("a run", Squares((1,)), Terms(tmp_path))
    assert str(report.error) == "the run that this task is part of has ended"
    slot.end_run("")


def test_images_in_a_zip_file(terms: RunTerms, tmp_path: Path) -> None:
    packed = tmp_path / "images.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.write(tmp_path / "images" / "001.png", "001.png")
    there = replace(terms, images=str(packed))
    assert there.misfit() is None
    assert str(replace(there, sample=("001.png", 1)).misfit()).startswith(f"does not see the image {packed}/001.png")
    packed.unlink()
    assert there.misfit() == f"has no file {packed}"
