"""Stores whose partitions are in a bucket: every verb answers as for a local store, by few requests."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import duckdb
import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.errors import UnreadableFile
from featurestore.storage import CATALOG, object_file
from featurestore.system import object_store
from tests.apps.test_viewer import opened
from tests.s3.conftest import Bucket
from tests.s3.proxy import Proxy
from tests.small import context_of, copy

SLACK = 1.2  # of the bytes that are wanted
STAGES = ("extract", "project", "quantize")


def sent_away(store: FeatureStore, path: Path, bucket: Bucket) -> FeatureStore:
    """Return a copy of a store whose partitions are in the bucket, and nowhere else."""
    moved = copy(store, path)
    moved.move(f"s3://{bucket.name}/stores/{path.name}")
    return moved


@pytest.fixture(scope="module")
def shared(finished: FeatureStore, service: Proxy, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A finished store in a bucket. Not to be changed."""
    return sent_away(finished, tmp_path_factory.mktemp("remote") / "store", Bucket(service, "bucket-of-stores"))


@pytest.fixture
def remote(shared: FeatureStore, service: Proxy) -> FeatureStore:
    """The same, as another process sees it."""
    object_file._OPEN.clear()
    service.spoil(iter(()))
    return FeatureStore(shared.path)


def names_of(store: FeatureStore) -> list[str]:
    """Return the names of the images of the first chunk."""
    query = "SELECT filename FROM images WHERE chunk_id = 0 ORDER BY image_id"
    return [str(name) for (name,) in store.sql(query).fetchall()]


def n_bytes(store: FeatureStore, stage: str) -> int:
    """Return the bytes of a stage's partitions."""
    return int(store.sql(f"SELECT sum(n_bytes) FROM partitions WHERE stage = '{stage}'").fetchall()[0][0])


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_is_two_gets_and_the_next_of_its_chunk_is_one(
    remote: FeatureStore, finished: FeatureStore, service: Proxy, stage: str
) -> None:
    first, second, *_ = names_of(finished)
    assert np.array_equal(remote.descriptors(first, stage), finished.descriptors(first, stage))
    assert service.asked.keys() == {"GET"}
    assert service.asked["GET"] <= 2
    before = service.asked["GET"]
    assert np.array_equal(remote.descriptors(second, stage), finished.descriptors(second, stage))
    assert service.asked["GET"] <= before + 1


def test_an_image_with_keypoints_is_two_gets(remote: FeatureStore, finished: FeatureStore, service: Proxy) -> None:
    chosen = f"filename = '{names_of(finished)[0]}'"
    found = remote.load("extract", chosen, keypoints=True)
    assert service.asked == {"GET": 2}
    assert found == finished.load("extract", chosen, keypoints=True)
    name = names_of(finished)[1]
    assert np.array_equal(remote.keypoints(name, "extract"), finished.keypoints(name, "extract"))
    assert service.asked["GET"] <= 4


@pytest.mark.parametrize("stage", STAGES)
def test_a_matrix_reads_the_bytes_of_its_partitions_once(
    remote: FeatureStore, finished: FeatureStore, service: Proxy, stage: str
) -> None:
    found = remote.matrix(stage)
    n_partitions = 4
    assert all(np.array_equal(a, b) for a, b in zip(found, finished.matrix(stage), strict=True))
    assert service.n_bytes <= SLACK * n_bytes(finished, stage)
    assert service.asked.keys() == {"GET"}
    assert service.asked["GET"] <= 2 * n_partitions, "the end, and the only row group"


def test_batches_are_those_of_a_local_store(remote: FeatureStore, finished: FeatureStore, service: Proxy) -> None:
    for one, other in zip(remote.iter_batches(7), finished.iter_batches(7), strict=True):
        assert one == other
    assert service.asked["GET"] <= 8


def test_what_is_made_of_descriptors_is_that_of_a_local_store(
    remote: FeatureStore, finished: FeatureStore, service: Proxy, tmp_path: Path
) -> None:
    name = names_of(finished)[0]
    picture = Path(context_of(finished).images) / name
    found, wanted = ([(hit.filename, hit.score) for hit in store.search(picture).hits] for store in (remote, finished))
    assert found == wanted
    assert remote.match(picture, name).inliers == finished.match(picture, name).inliers
    for store in (remote, finished):
        store.export(tmp_path / f"{store is remote}.parquet", format="parquet")
    assert (tmp_path / "True.parquet").read_bytes() == (tmp_path / "False.parquet").read_bytes()
    assert service.asked.keys() == {"GET"}


def test_the_viewer_shows_a_store_in_a_bucket(remote: FeatureStore, finished: FeatureStore) -> None:
    viewer = opened(remote)
    name = names_of(finished)[0]
    for page in ("/", "/images", f"/image?name={name}", f"/thumbnail?name={name}", "/failures", "/run"):
        assert viewer.get(page).status_code == 200


def test_status_asks_nothing_of_the_service(remote: FeatureStore, finished: FeatureStore, service: Proxy) -> None:
    assert remote.status().stages == finished.status().stages
    assert remote.info(names_of(finished)[0]) == finished.info(names_of(finished)[0])
    assert remote.plan() == []
    assert service.asked == {}


def test_sql_reads_small_columns_by_a_get_each_row_group(
    remote: FeatureStore, finished: FeatureStore, service: Proxy
) -> None:
    for query in (
        "SELECT sum(n_descriptors), count(*) FROM extracted",
        "SELECT status, count(*) FROM quantized JOIN images USING (image_id) GROUP BY ALL ORDER BY ALL",
        "SELECT md5(descriptors) FROM extracted WHERE image_id = 3",
    ):
        assert remote.sql(query).fetchall() == finished.sql(query).fetchall()
    assert service.asked.keys() == {"GET"}
    assert service.asked["GET"] <= 20


@pytest.mark.usefixtures("impatient")
def test_a_service_that_fails_ends_a_verb_in_one_line(
    remote: FeatureStore, service: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "RETRIES", 0)
    service.spoil(repeat("503"))
    line = r"^s3://\S+\.parquet can't be read: 503 Service Unavailable \(SlowDown\); [^\n]*$"
    name = names_of(remote)[0]
    asks: tuple[Callable[[], object], ...] = (
        remote.matrix,
        lambda: remote.sql("FROM quantized"),
        lambda: remote.descriptors(name),
    )
    for ask in asks:
        with pytest.raises(UnreadableFile, match=line):
            ask()
    with pytest.raises(UnreadableFile, match=r"^s3://\S+/partitions can't be read: 503"):
        remote.verify()


def test_verify_finds_what_is_gone_and_what_was_replaced(tiny: FeatureStore, bucket: Bucket, tmp_path: Path) -> None:
    store = sent_away(tiny, tmp_path / "store", bucket)
    bucket.service.spoil(iter(()))
    assert store.verify().problems == []
    assert {asked: bucket.service.asked[asked] for asked in ("LIST", "HEAD")} == {"LIST": 2, "HEAD": 0}
    with duckdb.connect(store.path / CATALOG) as connection:
        connection.execute("UPDATE partitions SET etag = CASE stage WHEN 'extract' THEN 'another' END")
    assert store.verify().problems == []
    assert bucket.service.asked["HEAD"] == len(STAGES), "the SHA-256 tells where no ETag does"
    paths = dict(store.sql("SELECT stage, path FROM partitions").fetchall())
    data = {stage: (tiny.path / path).read_bytes() for stage, path in paths.items()}
    bucket.put(f"stores/store/{paths['extract']}", data["extract"][:99] + b"..." + data["extract"][102:])
    bucket.put(f"stores/store/{paths['project']}", data["project"] + b"\0")
    bucket.delete(f"stores/store/{paths['quantize']}")
    bucket.put("stores/store/partitions/quantize/stray.parquet", b"stray")
    for deep in (False, True):
        found = {problem.name: problem.what for problem in store.verify(deep=deep).problems}
        assert found.keys() >= set(paths.values())
    repaired = store.verify(repair=True)
    assert len(repaired.repaired) == len(STAGES) + 1
    store.run(workers=0)
    assert store.verify(deep=True).problems == []
    assert np.array_equal(store.matrix()[0], tiny.matrix()[0])
