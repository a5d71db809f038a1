"""Stores whose partitions are in a bucket: the same bytes as in a folder, whenever a run ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import (
    ConfigError,
    FeatureStoreError,
    MissingDependency,
    NotEnoughSpace,
    NotWritable,
    UnreadableFile,
    UntrustedStore,
)
from featurestore.pipeline import chunk_writer, refuse_if_too_large
from featurestore.storage import Root, unreachable
from featurestore.storage.bucket_owner import OWNER
from featurestore.storage.remote_partitions import RemotePartitions
from featurestore.system import object_store
from tests.cluster import cluster_of_threads
from tests.notebook import write_chunks
from tests.s3.conftest import Bucket
from tests.s3.proxy import Fault, Proxy
from tests.small import change_recipe, context_of, copy, invoke, rows_of

RECIPE = "featurestore.toml"


def partitions(store: FeatureStore) -> list[tuple[object, ...]]:
    return store.sql("SELECT path, payload, checksum, n_bytes, n_descriptors FROM partitions ORDER BY path").fetchall()


def folder_of(store: FeatureStore) -> Path:
    return Path(context_of(store).images)


def in_bucket(store: FeatureStore) -> list[str]:
    return context_of(store).root.partitions.names("partitions", "")[0]


def twin(store: FeatureStore, path: Path, where: str) -> FeatureStore:
    """Make a store of the same images and recipe, with partitions elsewhere."""
    folder = folder_of(store)
    made = FeatureStore.create(path, images=folder, dataset=folder / "dataset.csv", chunk_size=5, partitions=where)
    (path / RECIPE).write_bytes((store.path / RECIPE).read_bytes())
    change_recipe(made, {"store": {"images": str(folder), "dataset": "", "partitions": where}})
    return made


@pytest.fixture
def store(tiny: FeatureStore, bucket: Bucket, tmp_path: Path) -> FeatureStore:
    """A store like `tiny` with partitions in a bucket; nothing is computed yet."""
    return twin(tiny, tmp_path / "store", bucket.where)


def assert_the_same(store: FeatureStore, tiny: FeatureStore, *, stages: Sequence[str] = ()) -> None:
    """Check that a store has the partitions of `tiny`, to the byte, and none in its folder."""
    assert partitions(store) == partitions(tiny)
    kept = context_of(store).root.partitions
    assert [(name, kept.digest(name)) for name in in_bucket(store)] == [(row[0], row[2]) for row in partitions(tiny)]
    assert not [path for path in (store.path / "partitions").rglob("*") if path.is_file()]
    assert not (store.path / "blocks").exists()
    assert [estimate for estimate in store.plan() if not stages or estimate.stage in stages] == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_writes_the_same_partitions_into_a_bucket(
    tiny: FeatureStore, store: FeatureStore, bucket: Bucket, workers: int
) -> None:
    bucket.service.spoil(iter(()))
    store.run(workers=workers)
    assert bucket.service.asked["PUT"] == len(partitions(tiny))
    assert_the_same(store, tiny)
    assert store.verify().problems == store.verify(deep=True).problems == []


def test_what_a_killed_run_has_put_is_recorded_by_the_next(
    tiny: FeatureStore, store: FeatureStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chunk_writer, "record_written", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.run(workers=0)
    assert len(in_bucket(store)) == 1
    assert partitions(store) == []
    damaged = in_bucket(store)[0].replace("chunk-000000", "chunk-000001")
    bucket.put(f"p/{damaged}", b"PAR1")
    bucket.service.spoil(iter(()))
    store.run("extract", workers=0)
    assert bucket.service.asked["PUT"] == 0
    assert len(in_bucket(store)) == len(partitions(store)) == 1
    store.run(workers=0)
    assert_the_same(store, tiny)


def test_failed_images_are_tried_again_and_what_they_replace_is_deleted(
    tiny: FeatureStore, bucket: Bucket, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in folder_of(tiny).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    lost = folder / "001.png"
    data = lost.read_bytes()
    lost.unlink()
    store = twin(tiny, tmp_path / "store", bucket.where)
    change_recipe(store, {"store": {"images": str(folder)}})
    store.run("extract", workers=0)
    before = in_bucket(store)
    assert store.run("extract", retry_failed=True, workers=0)[0].n_images == 1
    assert in_bucket(store) == before, "the same rows have the same name"
    lost.write_bytes(data)
    store.run("extract", retry_failed=True, workers=0)
    assert len(in_bucket(store)) == 1
    assert in_bucket(store) != before
    lost.write_bytes((folder / "002.png").read_bytes())
    assert store.run("extract", check_images=True, workers=0)[0].n_images == 1
    lost.write_bytes(data)
    store.run("extract", check_images=True, workers=0)
    store.run(workers=0)
    assert_the_same(store, tiny)


@pytest.mark.parametrize(("fault", "kind"), [("503", UnreadableFile), ("denied", NotWritable)])
def test_a_run_ends_in_one_line_where_nothing_can_be_put_and_the_next_goes_on(
    tiny: FeatureStore,
    store: FeatureStore,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    kind: type[FeatureStoreError],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "RETRIES", 0)
        patch.setattr(object_store, "ATTEMPTS", 1)
        bucket.service.spoil(chain((None, None), repeat(fault)))  # after the store's number and the list
        with pytest.raises(kind, match=rf"^{bucket.where}/partitions/extract/\S+ can't be changed: [45]03 .*[^\n]$"):
            store.run(workers=0)
    assert list((store.path / "blocks").rglob("block-*"))
    bucket.service.spoil(iter(()))
    assert store.run(workers=0)[0].n_images == 0, "only the partition was missing"
    assert_the_same(store, tiny)


def test_the_folder_needs_room_for_what_workers_write_at_the_moment(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = store.plan()
    assert all(len(estimate.chunks) == 1 for estimate in planned)
    least = max(e.n_bytes for e in planned) + max(e.block_bytes for e in planned)
    context = context_of(store)
    monkeypatch.setattr(Root, "free_bytes", lambda root: round(1.1 * least) + 1)
    refuse_if_too_large(context, planned)
    monkeypatch.setattr(Root, "free_bytes", lambda root: least)
    with pytest.raises(NotEnoughSpace, match="make room"):
        refuse_if_too_large(context, planned)


def test_imported_descriptors_are_put_too(
    tiny: FeatureStore, store: FeatureStore, bucket: Bucket, tmp_path: Path
) -> None:
    images = [(row.filename, row.descriptors) for row in rows_of(tiny, "extract")]
    write_chunks(tmp_path / "npz", images, size=2)
    assert store.import_npz(tmp_path / "npz").published == (0,)
    again = copy(tiny, tmp_path / "again")
    for path in (again.path / "catalog.duckdb", *(again.path / "partitions").rglob("*.parquet")):
        path.unlink()
    again.rebuild()
    again.import_npz(tmp_path / "npz")
    assert partitions(store) == partitions(again)
    assert_the_same(store, again, stages=["extract"])


@pytest.mark.cluster
def test_the_workers_of_a_cluster_put_what_they_write(tiny: FeatureStore, store: FeatureStore) -> None:
    with cluster_of_threads(1) as scheduler:
        store.run("extract", engine="dask", scheduler=scheduler)
    assert partitions(store) == partitions(tiny)[:1]
    assert in_bucket(store) == [partitions(tiny)[0][0]]


def test_stores_are_merged_from_a_bucket_and_into_one(
    tiny: FeatureStore, store: FeatureStore, tmp_path: Path, bucket: Bucket
) -> None:
    there = copy(tiny, tmp_path / "there")
    change_recipe(there, {"store": {"dataset": ""}})
    assert store.merge(there.path)[0].n_partitions == len(partitions(tiny))
    assert_the_same(store, tiny)
    folder = folder_of(tiny)
    here = FeatureStore.create(tmp_path / "here", images=folder, dataset=folder / "dataset.csv", chunk_size=5)
    (here.path / RECIPE).write_bytes((there.path / RECIPE).read_bytes())
    assert here.merge(store.path)[0].n_partitions == len(partitions(tiny))
    assert partitions(here) == partitions(tiny)
    assert here.verify(deep=True).problems == []


def test_a_prefix_belongs_to_one_store(tiny: FeatureStore, store: FeatureStore, bucket: Bucket, tmp_path: Path) -> None:
    images = ("--images", folder_of(tiny))
    said = invoke("init", tmp_path / "other", *images, "--partitions", bucket.where)
    assert isinstance(said.exception, ConfigError)
    assert str(said.exception).startswith(f"{bucket.where} belongs to another store, made at {store.path}: a prefix ")
    assert not (tmp_path / "other").exists()
    other = copy(tiny, tmp_path / "other")
    change_recipe(other, {"store": {"partitions": bucket.where}})
    with pytest.raises(ConfigError, match="belongs to another store"):
        other.run()
    bucket.delete(f"p/{OWNER}")
    bucket.put("p/partitions/x.parquet", b"1")
    said = invoke("init", tmp_path / "third", *images, "--partitions", bucket.where)
    assert "has partitions already, like partitions/x.parquet" in str(said.exception)
    (store.path / OWNER).unlink()
    bucket.delete("p/partitions/x.parquet")
    store.ingest()
    assert store.path.joinpath(OWNER).is_file()


def test_no_store_has_its_partitions_among_those_of_another(
    tiny: FeatureStore, store: FeatureStore, bucket: Bucket, service: Proxy, tmp_path: Path
) -> None:
    message = (
        f"is among the partitions of another store, made at {store.path}, which would delete what it does not know"
    )
    for below in ("partitions", "partitions/deep/partitions/er"):
        where = ("--partitions", f"{bucket.where}/{below}")
        assert message in str(invoke("init", tmp_path / "inner", "--images", folder_of(tiny), *where).exception)
        assert message in str(invoke("move", copy(tiny, tmp_path / below).path, *where).exception)
    inner = copy(tiny, tmp_path / "inner")
    assert not bucket.names("p/partitions")
    service.spoil(chain([None], repeat("denied", object_store.ATTEMPTS)))  # what is above the prefix may be denied
    assert inner.move(f"s3://{bucket.name}/partitions/q").n_partitions == len(partitions(tiny))
    assert service.injected["denied"] == object_store.ATTEMPTS


def test_an_address_that_can_not_be_used(
    tiny: FeatureStore, service: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy(tiny, tmp_path / "store")

    def refused(where: str, kind: type[Exception], what: str) -> None:
        change_recipe(store, {"store": {"partitions": where}})
        with pytest.raises(kind, match=what):
            store.run()

    refused("partitions", ConfigError, r"^\[store\] partitions is 'partitions', and should be empty")
    refused("s3://", ConfigError, "names no bucket")
    refused("s3://nothing-there/p", UnreadableFile, "404 Not Found")
    with pytest.raises(UntrustedStore, match="its partitions elsewhere"):
        FeatureStore.open_untrusted(store.path)
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    refused("s3://another/p", MissingDependency, r"pip install 'featurestore\[s3\]'")
    assert str(unreachable(RemotePartitions("s3://another/p"))).startswith("can't read s3://another/p: ")
