"""How far a run is, as another process sees it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.catalog import RunningStage, make_plan, resolve, running_stage, utc_now
from featurestore.catalog.statements import update_rows
from featurestore.cli.text import status_text
from featurestore.pipeline import Options, run_stages
from featurestore.progress import Silent
from tests.small import StopAfter, configure, context_of, copy, make_small, small_store


class Looking(Silent):
    """Asks for the status, as another process would, whenever the run has got on."""

    def __init__(self, store: FeatureStore) -> None:
        self.store, self.seen = store, list[RunningStage]()

    def advance(self, n_images: int) -> None:
        running = self.store.status().running
        assert running is not None
        self.seen.append(running)


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Looking:
    """What was seen during a run of extract and fit_pca over two chunks of three images."""
    folder = tmp_path_factory.mktemp("running")
    make_small(folder / "images", n=6)
    store = small_store(folder / "store", folder / "images", chunk_size=3)
    looking = Looking(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurestore.pipeline.extract_run.MAX_BLOCK", 1)
        with store._held("run", looking) as context:
            run_stages(context, Options(stages=("extract", "fit_pca"), workers=0))
    return looking


def test_a_stage_is_seen_on_its_way(looking: Looking) -> None:
    extract = [running for running in looking.seen if running.stage == "extract"]
    assert [running.n_done for running in extract] == [1, 2, 3, 4, 5, 6]
    assert {running.n_images for running in extract} == {6}
    third = extract[2]
    assert third.images_per_second is not None
    assert third.images_per_second * third.seconds == pytest.approx(3)
    assert third.seconds_left == pytest.approx(3 / third.images_per_second)


def test_a_fit_is_seen_by_its_checkpoint(looking: Looking) -> None:
    assert [running.n_done for running in looking.seen if running.stage == "fit_pca"] == [3, 6]


def test_afterwards_nothing_runs(looking: Looking) -> None:
    assert looking.store.status().running is None


def test_what_an_earlier_run_did_is_no_part_of_the_rate(looking: Looking) -> None:
    store, now = looking.store, utc_now()
    context = context_of(store)
    first, second = sorted(store.path.glob("partitions/extract/**/*.parquet"))
    for path, minutes in ((first, 30), (second, 5)):
        made = (now - timedelta(minutes=minutes)).replace(tzinfo=UTC).timestamp()
        os.utime(path, (made, made))
    with context.catalog.transaction() as connection:
        begun = {"outcome": "running", "started": now - timedelta(minutes=10), "n_images": 3}
        update_rows(connection, "runs", begun, where={"stage": "extract"})
        plans = make_plan(connection, resolve(connection, context.flow))
        running = running_stage(connection, context.root, plans, now=now)
        update_rows(connection, "runs", {"outcome": "done"}, where={"stage": "extract"})
    assert running == RunningStage("extract", 6, 6, 600.0, 0.005, 0.0)


def test_what_an_earlier_run_learnt_is_no_part_of_the_rate(looking: Looking, tmp_path: Path) -> None:
    store = copy(looking.store, tmp_path / "store")
    configure(store, "fit_pca", seed=1)  # not fitted yet
    with pytest.raises(KeyboardInterrupt), store._held("run", Silent()) as context:
        run_stages(replace(context, reporter=StopAfter(1)), Options(stages=("fit_pca",), workers=0))
    resumed = Looking(store)
    with store._held("run", resumed) as context:
        run_stages(context, Options(stages=("fit_pca",), workers=0))
    (seen,) = resumed.seen
    assert seen.n_done == 6
    assert seen.images_per_second is not None
    assert seen.images_per_second * seen.seconds == pytest.approx(3)


def test_people_read_it(looking: Looking) -> None:
    running = RunningStage("extract", 10_000, 1234, 83.0, 12.34, 712.0)
    lines = status_text(replace(looking.store.status(), running=running)).splitlines()
    told = "1,234 of 10,000 images, 12.3 images/s, about 11 min 52 s left"
    assert f"extract has been running for 1 min 23 s: {told}" in lines
