"""Every fit stage and its learner keep to the contract."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.rows import Row
from featurestore.stages import FLOW, INDEX, FitStage
from featurestore.stages.fit_pca import FitPca
from featurestore.stages.fit_scale import FitScale
from featurestore.stages.fit_words import FitWords
from featurestore.testing import FitStageContract


def extracted(i: int) -> Row:
    matrix = np.random.default_rng(i).integers(0, 256, (30 + 7 * i, 16)).astype(np.uint8)
    return Row(i, f"{i}.jpg", "ok", None, matrix)


def coded(i: int) -> Row:
    codes = np.random.default_rng(i).integers(0, 256, (30 + 7 * i, 8)).astype(np.uint8)
    return Row(i, f"{i}.jpg", "ok", None, codes)


def projected(i: int) -> Row:
    low, high = np.sort(np.random.default_rng(i).normal(size=(2, 5)).astype(np.float32), axis=0)
    return Row(i, f"{i}.jpg", "ok", extra={"low": low.tolist(), "high": high.tolist()})


CASES: dict[str, tuple[FitStage, list[Row]]] = {
    "incremental": (FitPca(n_components=5, samples_per_image=40, batch_size=90), [extracted(i) for i in range(7)]),
    "gram": (
        FitPca(n_components=5, samples_per_image=40, batch_size=90, solver="gram"),
        [extracted(i) for i in range(7)],
    ),
    "covariance": (
        FitPca(n_components=5, samples_per_image=40, solver="covariance"),
        [extracted(i) for i in range(7)],
    ),
    "fit_words": (FitWords(codes_per_image=20, sample_size=50), [coded(i) for i in range(7)]),
    "fit_scale": (FitScale(), [projected(i) for i in range(7)]),
}


class TestFitStage(FitStageContract):
    @pytest.fixture(params=sorted(CASES))
    def case(self, request: pytest.FixtureRequest) -> tuple[FitStage, list[Row]]:
        return CASES[request.param]

    @pytest.fixture
    def stage(self, case: tuple[FitStage, list[Row]]) -> FitStage:
        return case[0]

    @pytest.fixture
    def rows(self, case: tuple[FitStage, list[Row]]) -> list[Row]:
        return case[1]


def test_every_fit_stage_is_tested_here() -> None:
    tested = {type(stage) for stage, _ in CASES.values()}
    assert tested == {stage for stage in (*FLOW, *INDEX) if issubclass(stage, FitStage)}


def test_sums_can_be_joined_and_increments_can_not() -> None:
    assert [CASES[name][0].joins() for name in ("covariance", "fit_scale", "incremental", "gram")] == [
        *(True, True),
        *(False, False),
    ]
