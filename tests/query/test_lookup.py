"""Single images out of many partitions, with as few open files as there may be."""

from __future__ import annotations

import os
import resource

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.query.lookup import OPEN_FILES, most_open
from tests.faults import limited
from tests.small import make_small, small_store

N = 6


@pytest.fixture(scope="module")
def chunks_of_one(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store with as many partitions as images."""
    folder = tmp_path_factory.mktemp("lookup")
    make_small(folder / "images", n=N)
    store = small_store(folder / "store", folder / "images", chunk_size=1)
    store.run("extract", workers=0)
    return store


def descriptors(store: FeatureStore, number: int) -> np.ndarray:
    return store.descriptors(f"{number:03d}.png", stage="extract")


def test_partitions_make_room_for_each_other_where_few_files_may_be_open(chunks_of_one: FeatureStore) -> None:
    expected = [descriptors(FeatureStore(chunks_of_one.path), number) for number in range(N)]
    store = FeatureStore(chunks_of_one.path)
    descriptors(store, 0)
    free = os.dup(0)
    os.close(free)
    with limited(resource.RLIMIT_NOFILE, free + 2):
        found = [descriptors(store, number) for number in (*range(N), *range(N))]
    assert all(np.array_equal(*pair) for pair in zip(found, [*expected, *expected], strict=True))


def test_most_of_the_limit_is_left_to_the_rest_of_the_program() -> None:
    for limit, most in ((4096, OPEN_FILES), (256, 32), (9, 1)):
        with limited(resource.RLIMIT_NOFILE, limit):
            assert most_open() == most
