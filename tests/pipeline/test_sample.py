"""The time of a first run, from a few images."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.pipeline import Options, Plan, estimate_costs, make_forecast, with_sample
from tests.small import change_recipe, context_of, copy


class Seconds:
    """A clock by which every image takes a second."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def sampled(store: FeatureStore, *, workers: int = 2) -> tuple[Plan, Plan]:
    """Return the estimates without and with a sample."""
    context = context_of(store)
    ahead = make_forecast(context, Options())
    with context.catalog.reading() as connection:
        before = estimate_costs(connection, ahead.plans)
    return before, with_sample(context, before, ahead.plans, workers=workers, clock=Seconds())


def test_extract_takes_what_its_sample_took(begun: FeatureStore) -> None:
    before, after = sampled(begun)
    assert before[0].seconds is None
    # of 9 images 5 are tried, until more than 4 seconds are over, and the first is not counted
    assert (after[0].stage, after[0].seconds) == ("extract", 26 / 2)
    assert after[0].notes == ("the time of extract is that of 4 images, with 2 workers",)
    assert after[1:] == before[1:]


def test_an_earlier_run_tells_more(begun: FeatureStore, tmp_path: Path) -> None:
    store = copy(begun, tmp_path / "store")
    store.run("extract", chunks=[0], workers=0)
    before, after = sampled(store)
    assert after is before


def test_without_images_the_time_stays_unknown(begun: FeatureStore, tmp_path: Path) -> None:
    store = copy(begun, tmp_path / "store")
    change_recipe(store, {"store": {"images": str(tmp_path / "gone")}})
    before, after = sampled(store)
    assert after == before


def test_very_large_images_are_not_tried(begun: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.pipeline.sample.MOST_PIXELS", 0)
    before, after = sampled(begun)
    assert after is before


def test_a_sample_leaves_nothing(begun: FeatureStore) -> None:
    files = {path: path.stat().st_mtime_ns for path in begun.path.rglob("*") if path.is_file()}
    assert begun.plan(sample=True)[0].seconds
    assert {path: path.stat().st_mtime_ns for path in begun.path.rglob("*") if path.is_file()} == files
