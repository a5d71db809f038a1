"""The compression of descriptors: a setting that changes files and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from tests.small import SMALL, configure, copy, make_small, small_store

RECIPE = SMALL | {"project": {"top": 60}}  # pictures of 80 x 60 have some 120 descriptors
STAGES = ("extract", "project", "quantize")


def codecs(store: FeatureStore, stage: str) -> list[str]:
    """The codec of each partition's descriptors, in the order of the chunks."""
    found = []
    for path in sorted(store.path.glob(f"partitions/{stage}/*/*.parquet")):
        columns = pq.read_metadata(path).row_group(0).to_dict()["columns"]
        found += [column["compression"] for column in columns if column["path_in_schema"] == "descriptors"]
    return found


def names(store: FeatureStore) -> list[str]:
    """The names of all partitions and models; they hold variants, payloads and model ids."""
    folders = ("partitions", "models")
    return sorted(path.relative_to(store.path).as_posix() for f in folders for path in store.path.glob(f"{f}/*/*/*"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compression") / "images"
    make_small(folder, n=7, size=(80, 60))
    return folder


@pytest.fixture(scope="module")
def finished(images: Path) -> FeatureStore:
    """A store of two chunks, with the compression of new stores. Not to be changed."""
    store = small_store(images.parent / "finished", images, recipe=RECIPE)
    store.run(workers=0)
    return store


def test_what_is_made_to_be_read_once_is_not_compressed(finished: FeatureStore) -> None:
    assert {stage: set(codecs(finished, stage)) for stage in STAGES} == {
        "extract": {"ZSTD"},
        "project": {"UNCOMPRESSED"},
        "quantize": {"ZSTD"},
    }


def test_it_makes_nothing_stale_and_holds_for_new_partitions(finished: FeatureStore, tmp_path: Path) -> None:
    images = shutil.copytree(finished.path.parent / "images", tmp_path / "images")
    store = copy(finished, tmp_path / "store")
    configure(store, "store", images=str(images), dataset=str(images / "dataset.csv"))
    before = names(store)
    for stage, kind in (("extract", "none"), ("project", "zstd"), ("quantize", "none")):
        configure(store, stage, compression=kind)
    assert store.plan() == []
    assert store.run(workers=0) == []
    make_small(images, n=9, size=(80, 60))
    store.run(workers=0, ingest=True)
    assert set(before) < set(names(store))
    assert codecs(store, "extract") == codecs(store, "quantize") == ["ZSTD", "ZSTD", "UNCOMPRESSED"]
    assert codecs(store, "project") == ["UNCOMPRESSED", "UNCOMPRESSED", "ZSTD"]
    assert store.verify(deep=True).ok
    assert store.matrix()[0].shape == (60 * 9, 16)


def test_stores_of_other_compressions_are_the_same_store(finished: FeatureStore, images: Path, tmp_path: Path) -> None:
    other = small_store(tmp_path / "other", images, recipe=RECIPE)
    for stage, kind in (("extract", "none"), ("project", "zstd"), ("quantize", "none")):
        configure(other, stage, compression=kind)
    other.run("extract", chunks=[1], workers=0)
    half = copy(other, tmp_path / "half")
    other.run(workers=0)
    assert names(other) == names(finished)
    for one, theirs in zip(other.matrix(), finished.matrix(), strict=True):
        np.testing.assert_array_equal(one, theirs)
    (report,) = half.merge(finished.path)
    assert report.n_here == 1, "what is here stays, whatever its bytes"
    assert names(half) == names(finished)
    assert codecs(half, "extract") == ["ZSTD", "UNCOMPRESSED"]
    assert half.plan() == []
    assert half.verify(deep=True).ok
