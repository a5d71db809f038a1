"""Stores that an earlier commit made: today's code opens, verifies, rebuilds and merges them, and has nothing to do.

`make test-upgrade` makes them with that commit, in an environment of its own, and says where they are.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.storage import CATALOG
from tests.catalogs import rows
from tests.small import digests

FINISHED = ("sift", "rootsift", "covariance", "pruned", "imported", "grown")


@pytest.fixture(scope="session")
def earlier() -> Path:
    folder = os.environ.get("FEATURESTORE_EARLIER_STORES")
    if not folder:
        pytest.skip("no stores of an earlier commit; `make test-upgrade` makes them")
    return Path(folder)


@pytest.fixture
def opened(earlier: Path, tmp_path: Path, request: pytest.FixtureRequest) -> FeatureStore:
    """A copy of the store that the test names."""
    return FeatureStore(shutil.copytree(earlier / request.param, tmp_path / request.param))


def payloads(store: FeatureStore) -> list[tuple[object, ...]]:
    return store.sql("SELECT stage, variant, chunk_id, payload FROM partitions ORDER BY ALL").fetchall()


@pytest.mark.parametrize("opened", FINISHED, indirect=True)
def test_there_is_nothing_to_do(opened: FeatureStore) -> None:
    before, known = digests(opened), payloads(opened)
    assert {stage.stage: stage.missing for stage in opened.status().stages if stage.missing} == {}
    assert opened.plan() == []
    assert opened.run(workers=0) == []
    assert (digests(opened), payloads(opened)) == (before, known)


@pytest.mark.parametrize("opened", FINISHED, indirect=True)
def test_it_verifies(opened: FeatureStore) -> None:
    assert [str(problem) for problem in opened.verify(deep=True).problems if problem.kind != "leakage"] == []
    assert opened.run(workers=0) == []
    assert [str(problem) for problem in opened.verify(deep=True).problems if problem.kind != "leakage"] == []


@pytest.mark.parametrize("opened", FINISHED, indirect=True)
def test_its_catalog_is_rebuilt(opened: FeatureStore) -> None:
    before, known = digests(opened), payloads(opened)
    images = opened.sql("SELECT * FROM images ORDER BY image_id").fetchall()
    (opened.path / CATALOG).unlink()
    opened.rebuild()
    assert (digests(opened), payloads(opened)) == (before, known)
    assert opened.sql("SELECT * FROM images ORDER BY image_id").fetchall() == images
    assert opened.run(workers=0) == []


@pytest.mark.parametrize("opened", ["sift", "covariance", "imported", "pruned"], indirect=True)
def test_it_is_merged_into_one_that_has_done_nothing(opened: FeatureStore, earlier: Path, tmp_path: Path) -> None:
    store = FeatureStore(shutil.copytree(earlier / "begun", tmp_path / "begun"))
    shutil.copy(opened.path / "featurestore.toml", store.path)
    store.merge(opened.path)
    assert payloads(store) == payloads(opened)
    assert store.run(workers=0) == []
    assert store.verify(deep=True).ok


def test_parts_are_merged_and_finished_to_the_same_payloads(earlier: Path, tmp_path: Path) -> None:
    store = FeatureStore(shutil.copytree(earlier / "begun", tmp_path / "begun"))
    store.merge(*(shutil.copytree(earlier / name, tmp_path / name) for name in ("parts-0", "parts-1")))
    done = [summary.stage for summary in store.run(workers=0)]
    assert done == ["fit_pca", "project", "fit_scale", "quantize"]
    assert payloads(store) == payloads(FeatureStore(earlier / "sift"))


@pytest.mark.parametrize("opened", ["half"], indirect=True)
def test_an_interrupted_run_goes_on_to_the_same_payloads(opened: FeatureStore, earlier: Path) -> None:
    (extract, *_) = opened.run(workers=0)
    assert (extract.stage, extract.n_chunks) == ("extract", 2)
    assert payloads(opened) == payloads(FeatureStore(earlier / "sift"))


@pytest.mark.parametrize("opened", FINISHED, indirect=True)
def test_ingesting_the_same_dataset_makes_nothing_stale(opened: FeatureStore) -> None:
    known = payloads(opened)
    opened.ingest()
    assert opened.run(workers=0) == []
    assert payloads(opened) == known
    n_images = rows(opened.path, "SELECT count(*) FROM images")
    opened.ingest()
    assert rows(opened.path, "SELECT count(*) FROM images") == n_images
