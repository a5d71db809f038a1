"""Stores whose images are objects: the same payloads as from a folder, whatever the service does."""

from __future__ import annotations

from itertools import chain, cycle, repeat
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import DatasetError, ImagesGone
from featurestore.rows import Status
from featurestore.system import object_store
from tests.broken_images import encoded, picture
from tests.s3.conftest import Bucket
from tests.s3.proxy import Fault
from tests.small import change_recipe, context_of, copy, invoke, rows_of, write_dataset

FAULTS: tuple[Fault | None, ...] = (
    *("refused", None),
    *("cut", None),
    *("503", None),
    *("500", None),
    "slow",
)
MANY = 220


def payloads(store: FeatureStore) -> list[tuple[object, ...]]:
    query = "SELECT variant, chunk_id, payload FROM partitions WHERE stage = 'extract' ORDER BY ALL"
    return store.sql(query).fetchall()


def folder_of(store: FeatureStore) -> Path:
    return Path(context_of(store).images)


def test_a_folder_and_a_bucket_of_it_give_the_same_payloads(tiny: FeatureStore, bucket: Bucket, tmp_path: Path) -> None:
    folder = folder_of(tiny)
    where = bucket.upload(folder, "p")
    store = FeatureStore.create(tmp_path / "store", images=where, dataset=folder / "dataset.csv", chunk_size=5)
    bucket.service.spoil(iter(()))
    store.run("extract", workers=2)
    assert payloads(store) == payloads(tiny)
    assert bucket.service.asked == {"HEAD": 3, "GET": 3}, "the HEADs are of the beginning of a run"
    bucket.service.spoil(iter(()))
    assert store.verify().problems == []
    assert bucket.service.asked["GET"] == 0
    assert bucket.service.asked["HEAD"] <= 3


def test_a_store_moves_to_a_bucket_and_finds_what_was_replaced(
    tiny: FeatureStore, bucket: Bucket, tmp_path: Path
) -> None:
    store = copy(tiny, tmp_path / "store")
    change_recipe(store, {"store": {"images": bucket.upload(folder_of(tiny), "p")}})
    assert store.plan() == []
    assert store.verify(deep=True).problems == []
    bucket.put("p/001.png", encoded(".png", picture(seed=77)))
    bucket.delete("p/002.png")
    bucket.service.spoil(iter(()))
    assert {problem.name for problem in store.verify().problems} == {"001.png", "002.png"}
    assert bucket.service.asked["GET"] == 0, "the list tells"
    assert store.run("extract", check_images=True, workers=0)[0].n_images == 1
    assert {problem.name for problem in store.verify(deep=True).problems if "gone" not in problem.what} == set()


def test_without_a_dataset_the_list_is_the_dataset(bucket: Bucket, tiny: FeatureStore, tmp_path: Path) -> None:
    where = bucket.upload(folder_of(tiny), "p")
    assert invoke("init", tmp_path / "store", "--images", f"{where}/").exit_code == 0
    store = FeatureStore(tmp_path / "store")
    assert context_of(store).settings.images == where
    assert store.sql("SELECT filename FROM images ORDER BY image_id").fetchall() == [(f"00{n}.png",) for n in range(3)]
    result = invoke("init", tmp_path / "other", "--images", f"s3://{bucket.name}/q")
    assert isinstance(result.exception, DatasetError)
    assert str(result.exception).startswith(f"there are no objects below s3://{bucket.name}/q; see docs/sources.md")


def many(folder: Path) -> Path:
    """Make a folder of many pictures that take milliseconds."""
    folder.mkdir()
    for n in range(MANY):
        (folder / f"{n:03d}.png").write_bytes(encoded(".png", picture(64, 48, seed=n)))
    return write_dataset(folder, ["filename,subset", *(f"{n:03d}.png,train" for n in range(MANY))])


@pytest.mark.usefixtures("impatient")
def test_two_hundred_faults_change_nothing(bucket: Bucket, tmp_path: Path) -> None:
    dataset = many(tmp_path / "images")
    local = FeatureStore.create(tmp_path / "local", images=tmp_path / "images", dataset=dataset)
    local.run("extract", workers=0)
    where = bucket.upload(tmp_path / "images", "p")
    remote = FeatureStore.create(tmp_path / "remote", images=where, dataset=dataset)
    bucket.service.spoil(cycle(FAULTS))
    remote.run("extract", workers=0)
    assert bucket.service.injected.total() >= 200, bucket.service.injected
    assert set(bucket.service.injected) == set(FAULTS) - {None}
    bucket.service.spoil(iter(()))
    assert payloads(remote) == payloads(local)
    assert {row.status for row in rows_of(remote, "extract")} <= {Status.OK, Status.EMPTY}


def test_a_service_that_goes_on_failing_ends_the_run_and_the_next_goes_on(
    tiny: FeatureStore, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tiny)
    store = FeatureStore.create(
        tmp_path / "store", images=bucket.upload(folder, "p"), dataset=folder / "dataset.csv", chunk_size=5
    )
    monkeypatch.setattr(object_store, "PAUSE", 0.01)
    denied: Fault = "denied"
    bucket.service.spoil(chain(repeat(None, 4), repeat(denied, 6)))
    with pytest.raises(ImagesGone, match=r"^the images can't be read: s3://[^\n]* gave 403 Forbidden \(AccessDenied\)"):
        store.run("extract", workers=0)
    assert payloads(store) == []
    bucket.service.spoil(iter(()))
    store.run("extract", workers=0)
    assert payloads(store) == payloads(tiny)
    monkeypatch.setattr(object_store, "RETRIES", 0)
    bucket.service.spoil(repeat("503"))
    (note,) = store.verify().notes
    assert note.endswith("can't be listed (503 Service Unavailable (SlowDown))")
