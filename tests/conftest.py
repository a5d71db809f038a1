"""What many tests share: sample images, a finished store made of them, and the optional folder of test images."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.samples import make_samples
from tests.small import copy


@pytest.fixture(scope="session", autouse=True)
def listening() -> None:
    """Hear Ctrl-C, and so do the processes that tests start: a shell lets what it runs in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Samples:
    """The sample images and their dataset CSV."""

    images: Path
    dataset: Path


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """26 images in a folder, and their CSV. Not to be changed."""
    folder = tmp_path_factory.mktemp("samples")
    return Samples(folder, make_samples(folder))


@pytest.fixture(scope="session")
def finished(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of the samples in chunks of 8 with every stage done. Not to be changed: see `store`."""
    path = tmp_path_factory.mktemp("finished") / "store"
    store = FeatureStore.create(path, images=samples.images, dataset=samples.dataset, chunk_size=8)
    store.run(workers=0)
    return store


@pytest.fixture
def store(finished: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A finished store of one's own, to be changed at will."""
    return copy(finished, tmp_path / "store")


@pytest.fixture(scope="session")
def begun(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of the samples in chunks of 8 in which nothing was run yet. Not to be changed: see `fresh`."""
    path = tmp_path_factory.mktemp("begun") / "store"
    return FeatureStore.create(path, images=samples.images, dataset=samples.dataset, chunk_size=8)


@pytest.fixture
def fresh(begun: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store of one's own in which nothing was run yet."""
    return copy(begun, tmp_path / "fresh")


@pytest.fixture(scope="session")
def image_folder() -> Path:
    """The optional folder of test images beside the checkout; a test that needs it is skipped where it is absent."""
    default = Path(__file__).parent.parent.parent / "shared" / "images"
    folder = Path(os.environ.get("FEATURESTORE_TEST_IMAGES", default))
    if not folder.is_dir():
        pytest.skip(f"no test images at {folder}; FEATURESTORE_TEST_IMAGES can name another folder")
    return folder
