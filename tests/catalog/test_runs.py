"""The record of a run never stands in the way of what the run has to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.catalog import WritableContext, recorded_run, resolve
from featurestore.errors import NotReady, UnreadableFile
from featurestore.storage import CATALOG
from tests.catalogs import rows
from tests.faults import ordinary_user
from tests.small import Listening, context_of, make_small, small_store


@pytest.fixture
def empty(tmp_path: Path) -> FeatureStore:
    """A store in which nothing was run."""
    make_small(tmp_path / "images", n=2)
    return small_store(tmp_path / "store", tmp_path / "images")


def run_and_lose_the_catalog(context: WritableContext, error: BaseException | None) -> None:
    with context.catalog.reading() as connection:
        step = resolve(connection, context.flow)[0]
    with recorded_run(context, step, workers=0):
        context.catalog.path.chmod(0)
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [NotReady("the run's own"), KeyboardInterrupt(), ValueError("of a stage")])
def test_the_error_of_a_run_is_not_hidden_by_that_of_its_record(empty: FeatureStore, error: BaseException) -> None:
    listening = Listening()
    with ordinary_user(), pytest.raises(type(error)) as caught:
        run_and_lose_the_catalog(context_of(empty, listening), error)
    assert caught.value is error
    (said,) = listening.said
    assert said.startswith("how this run ended could not be recorded: ")
    (empty.path / CATALOG).chmod(0o600)
    empty.ingest()
    assert rows(empty.path, "SELECT outcome FROM runs") == [("killed",)]


def test_a_run_that_is_done_and_can_not_be_recorded_says_so(empty: FeatureStore) -> None:
    with ordinary_user(), pytest.raises(UnreadableFile):
        run_and_lose_the_catalog(context_of(empty), None)
