"""Two hundred faults during the whole life of a store with partitions in a bucket: nothing is lost, nothing differs."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureStore
from tests.s3.conftest import Bucket
from tests.s3.proxy import Spoilt
from tests.small import change_recipe, context_of, make_small, small_store

# Two of three requests are spoilt, each pair in another way.
FAULTS: tuple[Spoilt | None, ...] = (
    *("refused", "cut", None),
    *("500", "lost", None),
    *("503", "409", None),
    *("lost", "slow", None),
    *("409", "refused", None),
    *("cut", "500", None),
)
N_IMAGES, IN_CHUNK = 8, 2
OTHER = {"project": {"top": 100}}


def recorded(store: FeatureStore) -> list[tuple[object, ...]]:
    return store.sql("SELECT path, payload, checksum, n_bytes FROM partitions ORDER BY path").fetchall()


def made(path: Path, images: Path, partitions: str = "") -> FeatureStore:
    """Make a store of a folder of `make_small` with small chunks."""
    store = small_store(path, images, chunk_size=IN_CHUNK)
    if partitions:
        change_recipe(store, {"store": {"partitions": partitions}})
    return store


@pytest.mark.usefixtures("impatient")
def test_two_hundred_faults_change_nothing(bucket: Bucket, tmp_path: Path) -> None:
    images = tmp_path / "images"
    make_small(images, n=N_IMAGES)
    local, remote = made(tmp_path / "local", images), made(tmp_path / "remote", images, bucket.where)
    bucket.service.spoil(cycle(FAULTS))
    for store in (local, remote):
        store.run(workers=0)
        change_recipe(store, OTHER)
    (images / "000.png").write_bytes((images / "001.png").read_bytes())
    for store in (local, remote):
        store.run(workers=0, check_images=True)
    assert remote.verify(deep=True).problems == []
    before = recorded(remote)
    remote.rebuild()
    assert recorded(remote) == before
    for stage in ("extract", "project", "quantize"):
        for found, wanted in zip(remote.matrix(stage), local.matrix(stage), strict=True):
            assert np.array_equal(found, wanted)
    for query in ("FROM quantized ORDER BY image_id", "SELECT sum(n_descriptors) FROM extracted"):
        assert remote.sql(query).fetchall() == local.sql(query).fetchall()
    pruned = [[(item.what, item.n_bytes) for item in store.prune().items] for store in (remote, local)]
    assert pruned[0] == pruned[1]
    assert bucket.service.injected.total() >= 200, bucket.service.injected
    assert set(bucket.service.injected) == set(FAULTS) - {None}
    bucket.service.spoil(iter(()))
    assert recorded(remote) == recorded(local)
    kept = context_of(remote).root.partitions
    assert kept.names("partitions", "")[0] == [row[0] for row in recorded(local)]
    assert [kept.digest(str(row[0])) for row in recorded(local)] == [row[2] for row in recorded(local)]
