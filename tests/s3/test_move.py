"""Stores that move into a bucket, to another prefix, and back: nothing is lost, whenever a move ends."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from featurestore import FeatureStore
from featurestore.catalog import PartitionRow
from featurestore.errors import ConfigError, CorruptFile, NotEnoughSpace
from featurestore.maintenance import move
from featurestore.storage import Root
from tests.s3.conftest import Bucket
from tests.s3.test_runs import assert_the_same, in_bucket, partitions
from tests.small import context_of, copy, invoke


@pytest.fixture
def store(tiny: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A finished store in its folder."""
    return copy(tiny, tmp_path / "store")


def in_bucket_of(bucket: Bucket) -> list[str]:
    return [name.removeprefix("p/") for name in bucket.names("p/partitions/")]


def in_folder(store: FeatureStore) -> list[str]:
    return Root(store.path).files("partitions", "")


def test_a_store_moves_into_a_bucket_to_another_prefix_and_back(
    tiny: FeatureStore, store: FeatureStore, bucket: Bucket
) -> None:
    said = invoke("move", store.path, "--partitions", f"{bucket.where}/")
    assert said.stdout == f"{bucket.where}: 3 partitions (211 kB) moved, 0 there already\n"
    assert_the_same(store, tiny)
    assert store.verify(deep=True).problems == []
    other = f"s3://{bucket.name}/q"
    bucket.service.spoil(iter(()))
    assert store.move(other).n_partitions == 3
    assert bucket.service.n_bytes < 1000, "within a bucket the service copies"
    assert_the_same(store, tiny)
    assert bucket.names("p/") == []
    assert store.move("").n_partitions == 3
    assert bucket.names("") == []
    assert len(in_folder(store)) == 3
    assert partitions(store) == partitions(tiny)
    assert store.verify(deep=True).problems == []
    assert store.plan() == []


def test_a_move_that_was_interrupted_goes_on(
    tiny: FeatureStore, store: FeatureStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, copied = move._Move._copy, list[str]()

    def copy_one(moving: move._Move, row: PartitionRow) -> None:
        if copied:
            raise KeyboardInterrupt
        copied.append(row.path)
        whole(moving, row)

    def interrupt(_: move._Move) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(move, "AT_ONCE", 1)
    with monkeypatch.context() as patch:
        patch.setattr(move._Move, "_copy", copy_one)
        with pytest.raises(KeyboardInterrupt):
            store.move(bucket.where)
    assert context_of(store).root.partitions.is_local
    assert in_bucket_of(bucket) == copied
    assert store.verify().problems == []
    with monkeypatch.context() as patch:
        patch.setattr(move._Move, "remove", interrupt)
        with pytest.raises(KeyboardInterrupt):  # after the recipe names the bucket
            store.move(bucket.where)
    assert len(in_folder(store)) == len(in_bucket(store)) == 3
    assert store.move(bucket.where).notes == ("3 partitions deleted that an interrupted move had left",)
    assert_the_same(store, tiny)


def test_what_is_damaged_is_not_moved(store: FeatureStore, bucket: Bucket) -> None:
    path = store.path / in_folder(store)[1]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    before = in_folder(store)
    with pytest.raises(CorruptFile, match=r"can't be moved: its SHA-256 is not .* Repair it: featurestore verify "):
        store.move(bucket.where)
    assert in_folder(store) == before
    assert context_of(store).root.partitions.is_local
    assert f"p/{before[1]}" not in bucket.names("p/")
    store.verify(repair=True)
    store.run(workers=0)
    assert store.move(bucket.where).n_partitions == 1


def test_where_a_store_can_not_move(
    tiny: FeatureStore, store: FeatureStore, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy(tiny, tmp_path / "other")
    bucket.put("q/partitions/x.parquet", b"1")
    with pytest.raises(ConfigError, match=r"has partitions already, like partitions/x.parquet"):
        other.move(f"s3://{bucket.name}/q")
    store.move(bucket.where)
    with pytest.raises(ConfigError, match=rf"^{bucket.where} belongs to another store, made at {store.path}: "):
        other.move(bucket.where)
    for options in ((), ("--partitions", bucket.where, "--into-folder")):
        assert isinstance(invoke("move", store.path, *options).exception, click.UsageError | SystemExit)
    monkeypatch.setattr(Root, "free_bytes", lambda root: 1000)
    with pytest.raises(NotEnoughSpace, match="free; make room, then move again"):
        store.move("")
