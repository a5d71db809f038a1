"""The contract of fit stages and their learners."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from featurestore.errors import NothingUsable
from featurestore.rows import Row
from featurestore.stages import STAGES, Arrays, FitStage, JoinableLearner, Learner
from featurestore.storage import model_id, read_arrays, write_arrays


def fed(learner: Learner, rows: Sequence[Row]) -> Learner:
    """Return a learner that has learnt rows."""
    for row in rows:
        learner.learn(row)
    return learner


def through_a_file(arrays: Arrays, folder: Path) -> Arrays:
    """Return a state as a killed fit finds it."""
    write_arrays(folder / "state.npz", arrays, {})
    return read_arrays(folder / "state.npz")[0]


class FitStageContract:
    """The suite of a fit stage: give the fixtures ``stage`` and ``rows``, seven images that it learns from."""

    @pytest.fixture
    def stage(self) -> FitStage:
        """Return the stage, with parameters that suit the rows."""
        raise NotImplementedError(f"{type(self).__name__}.stage")

    @pytest.fixture
    def rows(self) -> list[Row]:
        """Return seven images of the stage that it reads."""
        raise NotImplementedError(f"{type(self).__name__}.rows")

    @pytest.fixture
    def straight(self, stage: FitStage, rows: list[Row]) -> str:
        """Return the identity of the model that is learnt without a break."""
        return model_id("v", fed(stage.learner(None), rows).finish())

    def test_it_is_found_by_its_name(self, stage: FitStage) -> None:
        assert STAGES.find(stage.name) is type(stage)

    def test_a_state_is_gone_on_from_exactly(
        self, stage: FitStage, rows: list[Row], straight: str, tmp_path: Path
    ) -> None:
        for stop in range(len(rows) + 1):
            state = through_a_file(fed(stage.learner(None), rows[:stop]).state(), tmp_path)
            model = fed(stage.learner(state), rows[stop:]).finish()
            assert model_id("v", model) == straight, f"stopped after {stop} images"

    def test_what_is_sampled_ahead_is_what_is_learnt(self, stage: FitStage, rows: list[Row], straight: str) -> None:
        sampled = [stage.sample(row) for row in rows]
        assert model_id("v", fed(stage.learner(None), sampled).finish()) == straight
        assert [row.image_id for row in sampled] == [row.image_id for row in rows]

    def test_taking_a_state_changes_nothing(self, stage: FitStage, rows: list[Row], straight: str) -> None:
        learner = stage.learner(None)
        for row in rows:
            learner.state()
            learner.learn(row)
        assert model_id("v", learner.finish()) == straight

    def test_a_state_is_not_changed_by_what_is_learnt_after_it(self, stage: FitStage, rows: list[Row]) -> None:
        learner = fed(stage.learner(None), rows[:5])
        state = learner.state()
        before = model_id("v", state)
        fed(learner, rows[5:]).finish()
        assert model_id("v", state) == before

    def test_parts_that_are_learnt_side_by_side_are_joined_exactly(
        self, stage: FitStage, rows: list[Row], straight: str, tmp_path: Path
    ) -> None:
        if not stage.joins():
            return
        for first, second in [(0, 3), (2, 5), (3, 7), (7, 7)]:
            learner = cast(JoinableLearner, stage.learner(None))
            for part in (rows[:first], rows[first:second], rows[second:]):
                learner.join(through_a_file(fed(stage.learner(None), part).state(), tmp_path))
            assert model_id("v", learner.finish()) == straight, f"parts end at {first} and {second}"

    def test_a_child_of_a_model_learns_on(self, stage: FitStage, rows: list[Row], tmp_path: Path) -> None:
        parent = fed(stage.learner(None), rows[:4]).finish()
        child = fed(stage.learner(through_a_file(parent, tmp_path)), rows[4:]).finish()
        assert {name: array.shape for name, array in child.items()} == {name: a.shape for name, a in parent.items()}

    def test_a_model_is_plain_arrays_and_its_summary_is_json(self, stage: FitStage, rows: list[Row]) -> None:
        model = fed(stage.learner(None), rows).finish()
        assert all(array.dtype.kind in "fiu" and np.isfinite(array).all() for array in model.values())
        summary = stage.summary(model)
        assert json.loads(json.dumps(summary)) == summary

    def test_without_images_there_is_no_model(self, stage: FitStage) -> None:
        with pytest.raises(NothingUsable, match=f"^{stage.name} "):
            stage.learner(None).finish()
        with pytest.raises(NothingUsable):
            stage.learner(stage.learner(None).state()).finish()
