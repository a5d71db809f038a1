"""Partitions in a bucket: the suite of every kind, how many requests they take, and what the service may answer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import ConfigError, CorruptFile, FeatureStoreError, NotWritable, UnreadableFile
from featurestore.storage import object_file, remote_partitions
from featurestore.storage.remote_partitions import RemotePartitions
from featurestore.system import object_store
from tests.s3.conftest import Bucket
from tests.s3.proxy import Spoilt
from tests.storage.partitions_suite import NAME, PartitionsSuite, put

DATA = bytes(range(256)) * 4000
N_ROWS, IN_GROUP = 600, 100
FAULTS: tuple[Spoilt, ...] = ("refused", "denied", "cut", "500", "503", "slow", "409", "lost")


@pytest.fixture
def partitions(bucket: Bucket) -> RemotePartitions:
    return RemotePartitions.at_address(f"s3://{bucket.name}/p/")


@pytest.fixture
def kept(partitions: RemotePartitions, tmp_path: Path, bucket: Bucket) -> RemotePartitions:
    put(partitions, tmp_path, NAME, DATA)
    bucket.service.spoil(iter(()))
    return partitions


class TestBucket(PartitionsSuite):
    """The suite, of a bucket."""

    @pytest.fixture
    def partitions(self, bucket: Bucket) -> RemotePartitions:
        """A keeper without files."""
        return RemotePartitions.at_address(f"s3://{bucket.name}/p")


def table_of(folder: Path, in_group: int = IN_GROUP) -> Path:
    """Write a Parquet file with small columns and BLOBs, and return its path."""
    path = folder / ".tmp-000000000000-table"
    blobs = pa.array([hashlib.sha256(bytes([n % 256])).digest() * 150 for n in range(N_ROWS)])
    table = pa.table({"image_id": range(N_ROWS), "descriptors": blobs, "size": [4800.0] * N_ROWS})
    pq.write_table(table, path, row_group_size=in_group, compression="none", use_dictionary=False)
    return path


def removed(partitions: RemotePartitions) -> bool:
    partitions.remove(NAME)
    return True


def test_one_get_opens_one_reads_a_row_group_and_none_opens_again(
    partitions: RemotePartitions, bucket: Bucket, tmp_path: Path
) -> None:
    partitions.put(table_of(tmp_path), NAME)
    bucket.service.spoil(iter(()))
    with partitions.open(NAME) as source:
        file = pq.ParquetFile(source, pre_buffer=True)
        assert bucket.service.asked == {"GET": 1}
        group = file.read_row_group(1)
        assert group["image_id"].to_pylist() == list(range(IN_GROUP, 2 * IN_GROUP))
        assert bucket.service.asked == {"GET": 2}
        assert bucket.service.n_bytes < object_file.END + 1.01 * group.nbytes
    bucket.service.spoil(iter(()))
    with partitions.open(NAME) as source:
        assert pq.ParquetFile(source).metadata.num_rows == N_ROWS
    assert bucket.service.asked == {}, "its end is kept"


def test_a_footer_that_is_longer_than_the_first_get_is_fetched_by_a_second(
    partitions: RemotePartitions, bucket: Bucket, tmp_path: Path
) -> None:
    partitions.put(table_of(tmp_path, in_group=1), NAME)
    bucket.service.spoil(iter(()))
    for _ in range(2):
        with partitions.open(NAME) as source:
            assert pq.ParquetFile(source).metadata.num_rows == N_ROWS
    assert bucket.service.asked == {"GET": 2}


def test_ends_are_kept_up_to_a_limit(
    partitions: RemotePartitions, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_file, "KEPT_BYTES", object_file.END)
    names = [f"partitions/extract/abc/{n}.parquet" for n in range(2)]
    for name in names:
        put(partitions, tmp_path, name, DATA)
    for name in [*names, names[1], names[0]]:
        partitions.open(name).close()
    assert bucket.service.asked["GET"] == 3


def test_bytes_of_two_objects_never_mix(kept: RemotePartitions, bucket: Bucket, tmp_path: Path) -> None:
    with kept.open(NAME) as file:
        bucket.put(f"p/{NAME}", DATA[::-1])
        with pytest.raises(UnreadableFile, match=rf"{NAME} can't be read: another object has replaced it while"):
            file.read_at(100, 0)
    with kept.open(NAME) as file:
        assert file.read() == DATA[::-1]
    bucket.put(f"p/{NAME}", DATA)
    assert kept.state(NAME) == kept.list("partitions", "")[0][NAME]
    with kept.open(NAME) as file:
        assert file.read_at(100, len(DATA) - 100) == DATA[-100:], "the state told that the end is another one"
        bucket.delete(f"p/{NAME}")
        with pytest.raises(FileNotFoundError, match="there is no object of this name"):
            file.read_at(100, 0)


def test_a_thousand_names_are_a_request_and_each_state_is_one(kept: RemotePartitions, bucket: Bucket) -> None:
    for n in range(1001):
        bucket.put(f"p/partitions/extract/abc/{n}.parquet", b"")
    assert len(kept.list("partitions/extract/abc", ".parquet")[0]) == 1001
    assert bucket.service.asked == {"LIST": 2}
    assert kept.state(NAME) is not None
    assert kept.checksum(NAME) == hashlib.sha256(DATA).hexdigest()
    assert bucket.service.asked == {"LIST": 2, "HEAD": 2}
    bucket.put("p/foreign", DATA)
    assert kept.checksum("foreign") == hashlib.sha256(DATA).hexdigest()
    assert bucket.service.asked == {"LIST": 2, "HEAD": 3, "GET": 1}, "without the metadata, the bytes are read"


def test_one_put_publishes_and_a_second_changes_nothing(kept: RemotePartitions, bucket: Bucket, tmp_path: Path) -> None:
    before = kept.state(NAME)
    put(kept, tmp_path, NAME, DATA)
    assert kept.state(NAME) == before
    assert bucket.service.asked["PUT"] == 1
    assert bucket.service.headers["PUT"]["if-none-match"] == "*"
    checked = base64.b64decode(bucket.service.headers["PUT"]["x-amz-checksum-sha256"])
    assert checked.hex() == bucket.service.headers["PUT"]["x-amz-meta-sha256"] == kept.digest(NAME)
    for other in (DATA[1:], DATA[::-1]):
        with pytest.raises(CorruptFile, match=rf"^s3://\S+{NAME} is another object than the partition of its name"):
            put(kept, tmp_path, NAME, other)
    assert kept.digest(NAME) == hashlib.sha256(DATA).hexdigest()


def test_a_copy_within_a_bucket_reads_nothing(kept: RemotePartitions, bucket: Bucket, tmp_path: Path) -> None:
    other = RemotePartitions.at_address(f"s3://{bucket.name}/q/r")
    for _ in range(2):
        assert other.copy(kept, NAME)
    assert bucket.service.asked["GET"] == 0
    assert bucket.service.asked["PUT"] == 1
    assert other.digest(NAME) == other.checksum(NAME) == kept.checksum(NAME)
    assert not RemotePartitions.at_address("s3://another").copy(kept, NAME)
    with pytest.raises(FileNotFoundError):
        other.copy(kept, "partitions/none")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_tried_again(
    partitions: RemotePartitions, bucket: Bucket, tmp_path: Path, fault: Spoilt
) -> None:
    bucket.service.spoil(iter([fault, fault]))
    put(partitions, tmp_path, NAME, DATA)
    assert bucket.service.injected.total() == 2 or fault in ("slow", "lost"), "or the test would show nothing"
    checks: tuple[Callable[[], object], ...] = (
        lambda: partitions.open(NAME).read_at(10, 0) == DATA[:10],
        lambda: partitions.state(NAME),
        lambda: len(partitions.list("partitions", "")[0]) == 1,
        lambda: partitions.digest(NAME) == hashlib.sha256(DATA).hexdigest(),
        lambda: removed(partitions),
    )
    for check in checks:
        bucket.service.spoil(iter([fault, fault]))
        assert check()
    bucket.service.spoil(iter(()))
    assert partitions.state(NAME) is None


@pytest.fixture
def hasty(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "RETRIES", 0)
    monkeypatch.setattr(object_store, "ATTEMPTS", 2)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("fault", "said", "kind"),
    [("denied", "403 Forbidden", NotWritable), ("503", "503 Service Unavailable", UnreadableFile)],
)
def test_a_service_that_goes_on_failing_is_one_line(
    kept: RemotePartitions, bucket: Bucket, tmp_path: Path, fault: Spoilt, said: str, kind: type[FeatureStoreError]
) -> None:
    other = NAME.replace("chunk-000000", "chunk-000001")
    draft = tmp_path / "draft"
    draft.write_bytes(DATA)
    bucket.service.spoil(repeat(fault))
    changes: tuple[Callable[[], None], ...] = (lambda: kept.put(draft, other), lambda: kept.remove(NAME))
    for change in changes:
        with pytest.raises(kind, match=rf"^s3://\S+ can't be changed: {said}[^\n]*$"):
            change()
    assert draft.exists()
    for ask in (kept.state, kept.open, kept.digest, kept.checksum):
        with pytest.raises(UnreadableFile, match=rf"^s3://\S+ can't be read: {said}[^\n]*$"):
            ask(NAME)
    found, (failed,) = kept.list("partitions", "")
    assert (found, failed.reason) == ({}, f"{said} ({'AccessDenied' if fault == 'denied' else 'SlowDown'})")
    bucket.service.spoil(iter(()))
    assert kept.list("partitions", "")[0].keys() == {NAME}


@pytest.mark.usefixtures("impatient")
def test_faults_that_follow_each_other_are_no_reason_to_give_up(kept: RemotePartitions, bucket: Bucket) -> None:
    bucket.service.spoil(repeat("cut", 4))
    with kept.open(NAME) as file:
        assert file.read() == DATA
    assert bucket.service.injected["cut"] == 4
    bucket.service.spoil(iter(("500", "cut")))  # the second is the body of a 404, which obstore does not read again
    with pytest.raises(FileNotFoundError):
        kept.open("partitions/absent")
    assert bucket.service.injected == {"500": 1, "cut": 1}


@pytest.mark.usefixtures("impatient")
def test_a_conflict_that_lasts_is_one_line(
    partitions: RemotePartitions, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_partitions, "CONFLICTS", 2)
    bucket.service.spoil(chain(["409", None, "409", None]))
    with pytest.raises(UnreadableFile, match=r"can't be changed: 409 Conflict"):
        put(partitions, tmp_path, NAME, DATA)


def test_sql_reads_what_it_may_and_nothing_else(partitions: RemotePartitions, bucket: Bucket, tmp_path: Path) -> None:
    partitions.put(table_of(tmp_path), NAME)
    put(partitions, tmp_path, f"{NAME}.other", DATA)
    bucket.service.spoil(iter(()))
    path = partitions.for_sql(NAME)
    with duckdb.connect() as connection:
        partitions.register(connection)
        partitions.register(connection)
        connection.execute(f"SET allowed_paths = ['{path}']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        ask = connection.execute
        assert ask(f"SELECT sum(image_id), count(*) FROM '{path}'").fetchone() == (N_ROWS * (N_ROWS - 1) / 2, N_ROWS)
        assert bucket.service.asked == {"GET": 1 + N_ROWS // IN_GROUP}
        assert bucket.service.n_bytes < object_file.END + 20 * N_ROWS
        forbidden = (f"{path}.other", f"{path[:-8]}*")
        for query in (*(f"FROM read_parquet('{name}')" for name in forbidden), f"COPY (SELECT 1) TO '{path}.new'"):
            with pytest.raises(duckdb.PermissionException):
                ask(query)
    assert partitions.list("partitions", ".new") == ({}, [])


def test_addresses() -> None:
    assert RemotePartitions.at_address("s3://bucket//a/").where == "s3://bucket/a"
    with pytest.raises(ConfigError, match=r"s3:///a names no bucket; .*; correct `partitions` in featurestore.toml"):
        RemotePartitions.at_address("s3:///a")
