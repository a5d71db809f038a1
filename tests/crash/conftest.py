"""Stores of the samples: one that is only begun, and those in which nothing ever went wrong."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from tests.conftest import LONG_SIDE, make_small_samples
from tests.crash.harness import photograph
from tests.once import once

CHUNK_SIZE = 9  # three chunks, the last of them not full


@dataclass(frozen=True)
class Ground:
    """Where the crashes take place."""

    images: Path
    dataset: Path
    begun: Path  # a store in which nothing was run yet
    extracted: dict[str, Any]  # what a run of extract makes of it: stages after that see nothing else
    expected: dict[str, Any]  # what a run to the end makes of it

    def store(self, path: Path, *, state: str = "begun") -> Path:
        """Return a copy of the store in which nothing was run yet, or of the one that is ``extracted`` or ``whole``."""
        return Path(shutil.copytree(self.begun.with_name(state), path))


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The samples in half of the size that other tests have, and their stores. Not to be changed."""
    images = once(tmp_path_factory, "tiny-samples", lambda folder: make_small_samples(folder, long_side=LONG_SIDE // 2))
    dataset = images / "dataset.csv"

    def make(folder: Path) -> None:
        FeatureStore.create(folder / "begun", images=images, dataset=dataset, chunk_size=CHUNK_SIZE)
        FeatureStore(shutil.copytree(folder / "begun", folder / "extracted")).run("extract", workers=0)
        FeatureStore(shutil.copytree(folder / "extracted", folder / "whole")).run(workers=0)

    made = once(tmp_path_factory, "crash", make)
    folder = shutil.copytree(made, tmp_path_factory.mktemp("crash") / "stores")  # of this process, which may lock them
    return Ground(images, dataset, folder / "begun", *(photograph(folder / name) for name in ("extracted", "whole")))


@pytest.fixture(scope="session")
def kills() -> int:
    """How many kills are wanted at least: a few, or what ``make crash`` asks for."""
    return int(os.environ.get("FEATURESTORE_KILLS", "4"))
