"""What every fit stage and its learner keep to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.errors import NothingUsable
from featurestore.rows import Row
from featurestore.stages import FLOW, FitStage, JoinableLearner, Learner
from featurestore.stages.fit_pca import FitPca
from featurestore.stages.fit_scale import FitScale
from featurestore.storage import model_id, read_arrays, write_arrays

Arrays = dict[str, NDArray[Any]]


def extracted(i: int) -> Row:
    matrix = np.random.default_rng(i).integers(0, 256, (30 + 7 * i, 16)).astype(np.uint8)
    return Row(i, f"{i}.jpg", "ok", None, matrix)


def projected(i: int) -> Row:
    low, high = np.sort(np.random.default_rng(i).normal(size=(2, 5)).astype(np.float32), axis=0)
    return Row(i, f"{i}.jpg", "ok", extra={"low": low.tolist(), "high": high.tolist()})


CASES = {
    "fit_pca": (FitPca(n_components=5, samples_per_image=40, batch_size=90), [extracted(i) for i in range(7)]),
    "fit_scale": (FitScale(), [projected(i) for i in range(7)]),
}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> tuple[FitStage, list[Row]]:
    return CASES[request.param]


def fed(learner: Learner, rows: list[Row]) -> Learner:
    for row in rows:
        learner.learn(row)
    return learner


def through_a_file(arrays: Arrays, folder: Path) -> Arrays:
    """As a killed fit finds them."""
    write_arrays(folder / "state.npz", arrays, {})
    return read_arrays(folder / "state.npz")[0]


def test_every_fit_stage_is_tested_here() -> None:
    assert set(CASES) == {stage.name for stage in FLOW if issubclass(stage, FitStage)}


def test_a_state_is_gone_on_from_exactly(case: tuple[FitStage, list[Row]], tmp_path: Path) -> None:
    stage, rows = case
    straight = model_id("v", fed(stage.learner(None), rows).finish())
    for stop in range(len(rows) + 1):
        state = through_a_file(fed(stage.learner(None), rows[:stop]).state(), tmp_path)
        model = fed(stage.learner(state), rows[stop:]).finish()
        assert model_id("v", model) == straight, f"stopped after {stop} images"


def test_what_is_sampled_ahead_is_what_is_learnt(case: tuple[FitStage, list[Row]]) -> None:
    stage, rows = case
    sampled = [stage.sample(row) for row in rows]
    straight = model_id("v", fed(stage.learner(None), rows).finish())
    assert model_id("v", fed(stage.learner(None), sampled).finish()) == straight
    assert [row.image_id for row in sampled] == [row.image_id for row in rows]


def test_taking_a_state_changes_nothing(case: tuple[FitStage, list[Row]]) -> None:
    stage, rows = case
    learner = stage.learner(None)
    for row in rows:
        learner.state()
        learner.learn(row)
    assert model_id("v", learner.finish()) == model_id("v", fed(stage.learner(None), rows).finish())


def test_a_state_is_not_changed_by_what_is_learnt_after_it(case: tuple[FitStage, list[Row]]) -> None:
    stage, rows = case
    learner = fed(stage.learner(None), rows[:5])
    state = learner.state()
    before = model_id("v", state)
    fed(learner, rows[5:]).finish()
    assert model_id("v", state) == before


JOINABLE: dict[str, tuple[FitStage, list[Row]]] = {
    "covariance": (FitPca(n_components=5, samples_per_image=40, solver="covariance"), CASES["fit_pca"][1]),
    "fit_scale": CASES["fit_scale"],
}


@pytest.mark.parametrize("name", sorted(JOINABLE))
def test_parts_that_were_learnt_side_by_side_are_joined_exactly(name: str, tmp_path: Path) -> None:
    stage, rows = JOINABLE[name]
    assert stage.joins()
    straight = model_id("v", fed(stage.learner(None), rows).finish())
    for first, second in [(0, 3), (2, 5), (3, 7), (7, 7)]:
        learner = cast(JoinableLearner, stage.learner(None))
        for part in (rows[:first], rows[first:second], rows[second:]):
            learner.join(through_a_file(fed(stage.learner(None), part).state(), tmp_path))
        assert model_id("v", learner.finish()) == straight, f"parts end at {first} and {second}"


def test_increments_can_not_be_joined() -> None:
    assert not FitPca().joins()


def test_a_child_of_a_model_learns_on(case: tuple[FitStage, list[Row]], tmp_path: Path) -> None:
    stage, rows = case
    parent = fed(stage.learner(None), rows[:4]).finish()
    child = fed(stage.learner(through_a_file(parent, tmp_path)), rows[4:]).finish()
    assert set(child) == set(parent)
    assert {name: array.shape for name, array in child.items()} == {name: a.shape for name, a in parent.items()}
    assert model_id("v", child) != model_id("v", parent)


def test_a_model_is_plain_arrays_and_its_summary_is_json(case: tuple[FitStage, list[Row]]) -> None:
    stage, rows = case
    model = fed(stage.learner(None), rows).finish()
    assert all(array.dtype.kind in "fiu" and np.isfinite(array).all() for array in model.values())
    summary = stage.summary(model)
    assert json.loads(json.dumps(summary)) == summary


def test_without_images_there_is_no_model(case: tuple[FitStage, list[Row]]) -> None:
    stage, _ = case
    with pytest.raises(NothingUsable, match=f"^{stage.name} "):
        stage.learner(None).finish()
    with pytest.raises(NothingUsable):
        stage.learner(stage.learner(None).state()).finish()
