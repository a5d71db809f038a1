"""What many tests share: sample images, a finished store made of them, and the optional folder of test images."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from featurestore import FeatureStore
from featurestore.cli.samples import make_samples
from tests.once import once
from tests.small import configure, copy

LONG_SIDE = 200  # pixels: SIFT then takes milliseconds an image
TOP = 200  # descriptors: china has more of them, and most of flower has fewer
RECIPE = {"fit_pca": {"samples_per_image": TOP, "batch_size": 500}, "project": {"top": TOP}}


LONG = os.environ.get("FEATURESTORE_TESTS") == "long"  # as .ci/run has it: every combination, and more examples
settings.register_profile("short", max_examples=20, deadline=None, database=None)
settings.register_profile("long", max_examples=150, deadline=None, database=None)
settings.load_profile("long" if LONG else "short")


# Whole runs, processes that are killed, and large inputs: `make test-quick` leaves these modules out.
SLOW = {
    "test_blocks",
    "test_cli_upkeep",
    "test_decoder",
    "test_engines",
    "test_exit",
    "test_finished_blocks",
    "test_fits",
    "test_fits_side_by_side",
    "test_forecast",
    "test_hard_images",
    "test_hosts",
    "test_imagefolder",
    "test_import_npz",
    "test_intake",
    "test_kills",
    "test_large_catalogs",
    "test_learnt",
    "test_merge",
    "test_parity",
    "test_paths",
    "test_prune",
    "test_rebuild",
    "test_recover",
    "test_reliability_disk",
    "test_reliability_inputs",
    "test_reliability_readers",
    "test_removed",
    "test_shared_store",
    "test_signals",
    "test_store",
    "test_streams",
    "test_unreadable",
    "test_untrusted",
    "test_upgrades",
    "test_variants",
    "test_verify",
    "test_workers",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow modules."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


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
    """26 small images in a folder, and their CSV. Not to be changed."""
    folder = once(tmp_path_factory, "samples", make_small_samples)
    return Samples(folder, folder / "dataset.csv")


@pytest.fixture(scope="session")
def large_samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The same images in the size of the demo. Not to be changed."""
    folder = once(tmp_path_factory, "large-samples", make_samples)
    return Samples(folder, folder / "dataset.csv")


def make_small_samples(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurestore.cli.samples.LONG_SIDE", LONG_SIDE)
        make_samples(folder)


def make_store(path: Path, samples: Samples, *, chunk_size: int = 8) -> FeatureStore:
    """Make a store of the samples, with a recipe for small images, in which nothing was run yet."""
    store = FeatureStore.create(path, images=samples.images, dataset=samples.dataset, chunk_size=chunk_size)
    for stage, values in RECIPE.items():
        configure(store, stage, **values)
    return store


@pytest.fixture(scope="session")
def finished(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of the samples in chunks of 8 with every stage done. Not to be changed: see `store`."""
    made = once(tmp_path_factory, "finished", lambda folder: make_store(folder / "store", samples).run(workers=0))
    # A copy for each test process, since who reads a store may lock it.
    return copy(FeatureStore(made / "store"), tmp_path_factory.mktemp("finished") / "store")


@pytest.fixture
def store(finished: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A finished store of one's own, to be changed at will."""
    return copy(finished, tmp_path / "store")


@pytest.fixture(scope="session")
def begun(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of the samples in chunks of 8 in which nothing was run yet. Not to be changed: see `fresh`."""
    return make_store(tmp_path_factory.mktemp("begun") / "store", samples)


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
