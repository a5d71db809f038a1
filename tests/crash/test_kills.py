"""SIGKILL, at any moment and at the worst ones: nothing is lost, nothing is there twice, nothing is left behind."""

from __future__ import annotations

import os
import random
import shutil
import uuid
from itertools import count
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.storage import CONFIG
from tests.crash.conftest import Ground
from tests.crash.harness import kill_now_and_then, left_alive, photograph, run, runs, sabotage, tables
from tests.small import configure

STAGES = ("extract", "fit_pca", "project", "fit_scale", "quantize")
LONG = 60  # from this many kills on, every point and every stage is visited
# The worst moments: each in between two steps that belong together.
WORST = {
    "written blocks/extract",  # by the worker, and not seen by anybody
    "renamed blocks/extract",
    "removing blocks/extract",  # the partition is recorded
    "renamed partitions/extract",  # the file is there, and the catalog does not know
    "uncommitted partitions/extract",
    "renamed models/fit_pca/state.npz",
    "published models/fit_pca",
    "removing models/fit_pca/state.npz",  # the model is recorded, and the fit still looks unfinished
    "committed partitions/quantize",
}


def seed(test: str) -> str:
    """The same moments every time in ``make test``, others every time in ``make crash``."""
    chosen = os.environ.get("FEATURESTORE_KILL_SEED", "0")
    print(f"{test}: FEATURESTORE_KILL_SEED={chosen}")
    return f"{test} {chosen}"


def assert_nothing_is_lost(store: Path, ground: Ground) -> None:
    found = photograph(store)
    for what, expected in ground.expected.items():
        assert found[what] == expected, what
    assert {record["outcome"] for record in runs(store)} <= {"done", "killed"}


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments(ground: Ground, tmp_path: Path, kills: int, workers: int) -> None:
    if kills < LONG:
        pytest.skip("in the long form only: make crash")
    rng, mark, killed, rounds = random.Random(seed("random")), uuid.uuid4().hex, 0, count()
    while killed < kills / 6:
        store = ground.store(tmp_path / f"store-{next(rounds)}")
        verb = ("run", store, "--workers", str(workers), "--quiet")
        killed += kill_now_and_then(rng, max(2, kills // 20), *verb, mark=mark, longest=2)
        assert left_alive(mark) == []
        assert_nothing_is_lost(store, ground)
    print(f"killed {killed} times at random moments, {workers} workers")


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_every_stage(ground: Ground, tmp_path: Path, kills: int, stage: str) -> None:
    if kills < LONG:
        pytest.skip("in the long form only: make crash")
    rng, store, log, mark = random.Random(seed(stage)), ground.store(tmp_path / "store"), tmp_path / "log", "stage"
    struck, tries = 0, max(3, kills // 20)
    for number in range(tries):  # at its beginning first: on a quick machine it may be over in a tenth of a second
        verb = ("run", store, "--workers", "2", "--quiet")
        seconds = rng.uniform(0, 0.4) * number / tries
        # with a mark, so that workers start as usual: a forked one that is caught in its start keeps the outputs open
        struck += sabotage(log, (), *verb, stage=stage, seconds=seconds, mark=mark).killed
    assert struck
    assert run("run", store, "--quiet", mark=mark).code == 0
    assert_nothing_is_lost(store, ground)
    print(f"killed {struck} times in {stage}")


def test_killed_at_the_worst_moments(ground: Ground, tmp_path: Path, kills: int) -> None:
    log, struck, pending = tmp_path / "log", list[str](), set(WORST)
    if kills >= LONG:
        whole = sabotage(log, (), "run", ground.store(tmp_path / "whole"), "--workers", "0", "--quiet")
        pending |= set(whole.points)
    n_points = len(pending)
    while pending:
        store, before = ground.store(tmp_path / f"store-{len(struck)}"), len(struck)
        while (ended := sabotage(log, pending, "run", store, "--workers", "0", "--quiet")).killed:
            struck.append(ended.points[-1])
            pending.remove(ended.points[-1])
        assert (ended.code, ended.err) == (0, "")
        assert_nothing_is_lost(store, ground)
        assert len(struck) > before, f"never reached: {sorted(pending)}"
    print(f"killed at each of {n_points} points")


def test_a_killed_run_says_nothing_more(ground: Ground, tmp_path: Path) -> None:
    """What outlives it, the resource tracker of its workers, tidies up in silence."""
    verb = ("run", ground.store(tmp_path / "store"), "extract", "--workers", "2")
    ended = sabotage(tmp_path / "log", ["written partitions/extract"], *verb)
    assert (ended.killed, ended.err) == (True, "")


def test_an_init_that_is_killed_is_made_good_by_the_next(ground: Ground, tmp_path: Path, kills: int) -> None:
    log, folder = tmp_path / "log", tmp_path / "stores"
    verb = ("init", folder / "store", "--images", ground.images, "--dataset", ground.dataset, "--chunk-size", "9")
    points = {"renamed dataset", "uncommitted dataset", "renamed a store"}
    if kills >= LONG:
        points |= set(sabotage(log, (), *verb).points)
        shutil.rmtree(folder)
    for point in sorted(points):
        assert sabotage(log, [point], *verb).killed
        whole = point == "renamed a store"  # then there is nothing to make good
        ended = run(*verb)
        assert ended.code == (1 if whole else 0), ended
        assert [path.name for path in folder.iterdir()] == ["store"]
        assert FeatureStore(folder / "store").status().n_images == 26
        shutil.rmtree(folder)
    print(f"killed {len(points)} times in init")


def test_an_ingest_that_gives_a_type_is_completed_wherever_it_is_killed(ground: Ground, tmp_path: Path) -> None:
    """The recipe is written before the dataset file, so that the next ingest reads the dataset as this one would."""
    types = {"rotation": "VARCHAR"}
    whole = FeatureStore(ground.store(tmp_path / "whole"))
    whole.ingest(types=types)
    for point in ("written featurestore.toml", "published featurestore.toml", "uncommitted dataset"):
        store = FeatureStore(ground.store(tmp_path / point))
        assert sabotage(tmp_path / "log", [point], "ingest", store.path, "--type", "rotation=VARCHAR").killed, point
        assert store.status().n_images == 26, point
        store.run("extract", chunks=[0], workers=0)
        store.ingest(types=types if point.startswith("written") else None)
        assert (store.path / CONFIG).read_bytes() == (whole.path / CONFIG).read_bytes(), point
        assert store.sql("SELECT DISTINCT typeof(rotation) FROM images").fetchall() == [("VARCHAR",)], point
        assert tables(store.path)["dataset_columns"] == tables(whole.path)["dataset_columns"], point


def test_a_retry_that_is_killed_keeps_the_old_rows_or_the_new(ground: Ground, tmp_path: Path) -> None:
    """Between the record of a recomputed partition and the removal of the file that it replaces, and before."""
    images = shutil.copytree(ground.images, tmp_path / "images")
    store = FeatureStore(ground.store(tmp_path / "store", state="extracted"))
    configure(store, "store", images=str(images))
    shutil.copy(images / "china/left-000.jpg", images / "broken.jpg")
    verb = ("run", store.path, "extract", "--workers", "0", "--retry-failed")
    for point, status in (
        ("published partitions/extract", "truncated"),
        ("uncommitted partitions/extract", "truncated"),
        ("committed partitions/extract", "ok"),
    ):
        assert sabotage(tmp_path / "log", [point], *verb).killed, point
        found = store.sql("SELECT status FROM extracted WHERE filename = 'broken.jpg'").fetchall()
        assert found == [(status,)], point
    store.run("extract", workers=0)
    files = {path.relative_to(store.path).as_posix() for path in store.path.rglob("*.parquet")}
    recorded = {path for (path,) in store.sql("SELECT path FROM partitions").fetchall()}
    assert files == {*recorded, "dataset/000001.parquet"}
