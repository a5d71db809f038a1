"""The suites of featurestore.testing, as the toy package's own tests run them."""

from __future__ import annotations

import numpy as np
import pytest
from featurestore_toy import FitMean, Lines, Patches, Pool, Signs, Unit

from featurestore.plugins import Layout, Row
from featurestore.testing import (
    ChunkStageContract,
    EngineContract,
    ExtractorContract,
    FitStageContract,
    ImageExporterContract,
)


class TestPatches(ExtractorContract):
    @pytest.fixture
    def extractor(self):
        return Patches()


class TestUnit(ChunkStageContract):
    @pytest.fixture
    def stage(self):
        return Unit()

    @pytest.fixture
    def reads(self):
        return Layout(dim=16, dtype="uint8")


class TestSigns(ChunkStageContract):
    @pytest.fixture
    def stage(self):
        return Signs()

    @pytest.fixture
    def reads(self):
        return Layout(dim=16, dtype="float32")

    @pytest.fixture
    def fit(self):
        return FitMean()

    @pytest.fixture
    def model(self):
        return {"mean": np.zeros(16)}


class TestFitMean(FitStageContract):
    @pytest.fixture
    def stage(self):
        return FitMean()

    @pytest.fixture
    def rows(self):
        made = [np.random.default_rng(i).normal(size=(5 + i, 16)).astype(np.float32) for i in range(7)]
        return [Row(i, f"{i}.jpg", "ok", None, matrix) for i, matrix in enumerate(made)]


@pytest.fixture(scope="module")
def pool():
    pool = Pool(1)
    yield pool
    pool.close()


class TestPool(EngineContract):
    @pytest.fixture
    def engine(self, pool):
        return pool


class TestLines(ImageExporterContract):
    @pytest.fixture
    def exporter(self):
        return Lines()
