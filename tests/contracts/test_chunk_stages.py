"""Every chunk stage that reads another keeps to the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featurestore.rows import Layout, Row
from featurestore.stages import (
    FLOW,
    INDEX,
    STAGES,
    Arrays,
    ChunkStage,
    Extract,
    FitStage,
    Project,
    Quantize,
    TransformStage,
)
from featurestore.stages.codebook import rotation
from featurestore.stages.fit_pca import FitPca
from featurestore.stages.fit_scale import FitScale
from featurestore.stages.fit_words import FitWords
from featurestore.stages.words import Words
from featurestore.storage.partition_writer import to_table
from featurestore.testing import ChunkStageContract

RNG = np.random.default_rng(0)
# What each reads, the stage that it learns by, and a model.
BOUNDS = {"low": np.full(8, -2, np.float32), "high": np.full(8, 2, np.float32)}
CELLS = RNG.normal(size=(4, 8)).astype(np.float32)
WORDS: dict[str, NDArray[Any]] = {
    **BOUNDS,
    "cells": CELLS,
    "words": (CELLS[:, None] + RNG.normal(0, 0.3, size=(4, 4, 8))).reshape(16, 8).astype(np.float32),
    "starts": np.arange(0, 17, 4),
    "rotation": rotation(8, seed=0),
}
READS: dict[str, tuple[TransformStage, Layout, FitStage, dict[str, NDArray[Any]]]] = {
    "project": (
        Project(),
        Extract().layout(),
        FitPca(n_components=8),
        {"components_": RNG.normal(size=(8, 128)), "mean_": RNG.normal(size=128)},
    ),
    "quantize": (
        Quantize(),
        Layout(dim=8, dtype="float32"),
        FitScale(),
        BOUNDS,
    ),
    "words": (Words(), Layout(dim=8, dtype="uint8"), FitWords(), WORDS),
}


class TestChunkStage(ChunkStageContract):
    @pytest.fixture(params=sorted(READS))
    def case(self, request: pytest.FixtureRequest) -> tuple[TransformStage, Layout, FitStage, Arrays]:
        return READS[request.param]

    @pytest.fixture
    def stage(self, case: Any) -> TransformStage:
        found: TransformStage = case[0]
        return found

    @pytest.fixture
    def reads(self, case: Any) -> Layout:
        found: Layout = case[1]
        return found

    @pytest.fixture
    def fit(self, case: Any) -> FitStage:
        found: FitStage = case[2]
        return found

    @pytest.fixture
    def model(self, case: Any) -> Arrays:
        found: Arrays = case[3]
        return found

    def test_its_rows_can_be_stored(
        self, stage: TransformStage, reads: Layout, fit: FitStage, model: Arrays, image: Row
    ) -> None:
        row, layout = stage.transform(image, model), stage.layout(reads, fit)
        assert row.descriptors is not None
        table = to_table([row], layout)
        assert table.schema.equals(layout.schema())
        assert layout.matrix(table["descriptors"][0].as_buffer()).tolist() == row.descriptors.tolist()

    def test_every_descriptor_keeps_a_keypoint_of_its_own(
        self, stage: TransformStage, model: Arrays, image: Row
    ) -> None:
        row = stage.transform(image, model)
        if isinstance(stage, Words):  # whose rows are those of the codes, in their order
            assert row.keypoints is None
            return
        assert row.keypoints is not None
        assert len(row.keypoints) == row.n_descriptors > 0
        assert len(set(row.keypoints["x"].tolist())) == row.n_descriptors


def test_every_stage_that_transforms_rows_is_tested_here() -> None:
    assert {stage.name for stage in (*FLOW, *INDEX) if issubclass(stage, TransformStage)} == set(READS)


def test_every_stage_of_the_flow_is_found_by_its_name() -> None:
    assert [STAGES.find(name) for name in STAGES.names()] == [*FLOW, *INDEX]
    assert all(issubclass(stage, ChunkStage) != issubclass(stage, FitStage) for stage in FLOW)
