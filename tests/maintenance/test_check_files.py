"""Files are checked by any number of workers with the same result, and each is read once."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.engines import EngineChoice, all_cores, dask
from featurestore.errors import CorruptFile, EngineLost, NotEnoughSpace, UnreadableFile
from featurestore.maintenance import merge
from featurestore.maintenance.check_files import (
    WORTH_WORKERS,
    WORTH_WORKERS_DEEP,
    Checked,
    Checkers,
    CheckFile,
    check_files,
    default_workers,
)
from featurestore.rows import Layout, Row
from featurestore.storage import FORMAT, PartitionFile, PartitionWriter, Root, partition
from featurestore.storage.hashed_file import HashedFile
from featurestore.system import file_digest
from tests.catalogs import rows, tables
from tests.cluster import cluster_of_threads
from tests.faults import largest_file
from tests.small import copy, digests, invoke

TWO = Checkers(EngineChoice(workers=2))
IO_COUNTERS = Path("/proc/self/io")


@pytest.fixture(scope="module")
def damaged(finished: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store with a file that is damaged, one that is cut, and one that is gone."""
    store = copy(finished, tmp_path_factory.mktemp("damaged") / "store")
    flipped, cut, gone, *_ = sorted((store.path / "partitions").rglob("*.parquet"))
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-100])
    gone.unlink()
    return store


@pytest.fixture(scope="module")
def emptied_once(finished: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store without its partitions. Not to be changed: see `emptied`."""
    store = copy(finished, tmp_path_factory.mktemp("emptied") / "store")
    shutil.rmtree(store.path / "partitions")
    store.verify(repair=True)
    return store


@pytest.fixture
def emptied(emptied_once: FeatureStore, tmp_path: Path) -> FeatureStore:
    """Such a store, which the test may change."""
    return copy(emptied_once, tmp_path / "store")


@pytest.mark.parametrize("deep", [False, True])
def test_verify_finds_the_same_with_any_number_of_workers(damaged: FeatureStore, deep: bool) -> None:
    here, workers = (damaged.verify(deep=deep, workers=n) for n in (0, 2))
    assert here == workers
    assert [re.sub(r"\d+", "N", problem.what) for problem in here.problems] == [
        "the file is damaged: its SHA-N is not what was recorded",
        "the file has N bytes, and had N",
        "the file is missing",
    ]


def test_rebuild_makes_the_same_catalog_with_any_number_of_workers(damaged: FeatureStore, tmp_path: Path) -> None:
    made = []
    for n in (0, 2):
        store = copy(damaged, tmp_path / str(n))
        made.append((store.rebuild(workers=n), tables(store.path)))
    assert made[0] == made[1]
    assert len(made[0][0].notes) >= 2


def test_merge_takes_the_same_with_any_number_of_workers(
    emptied_once: FeatureStore, finished: FeatureStore, tmp_path: Path
) -> None:
    taken = []
    for n in (0, 2):
        store = copy(emptied_once, tmp_path / str(n))
        taken.append((store.merge(finished.path, workers=n)[0].n_partitions, store.verify(deep=True).problems))
    assert taken == [(12, []), (12, [])]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a Dask cluster with one worker, in this process."""
    with cluster_of_threads(1) as address:
        yield address


@pytest.mark.cluster
def test_a_cluster_verifies_the_same(damaged: FeatureStore, scheduler: str) -> None:
    assert damaged.verify(deep=True, scheduler=scheduler) == damaged.verify(deep=True, workers=0)


@pytest.mark.cluster
def test_a_cluster_rebuilds_the_same(damaged: FeatureStore, scheduler: str, tmp_path: Path) -> None:
    here, there = (copy(damaged, tmp_path / name) for name in ("here", "there"))
    assert there.rebuild(engine="dask", scheduler=scheduler) == here.rebuild(workers=0)
    assert tables(there.path) == tables(here.path)


@pytest.mark.cluster
def test_a_cluster_merges_the_same(emptied: FeatureStore, finished: FeatureStore, scheduler: str) -> None:
    assert emptied.merge(finished.path, scheduler=scheduler)[0].n_partitions == 12
    assert digests(emptied) == digests(finished)
    assert emptied.verify(deep=True).problems == []


@pytest.mark.parametrize("verb", ["verify", "rebuild", "merge"])
def test_a_verb_ends_where_its_cluster_is_not_there(
    emptied_once: FeatureStore, finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 0.2)
    store = copy(emptied_once if verb == "merge" else finished, tmp_path / "store")
    others = [finished.path] if verb == "merge" else []
    before = digests(store, "**/*")
    ended = invoke(verb, store.path, *others, "--scheduler", "tcp://127.0.0.1:1")
    assert isinstance(ended.exception, EngineLost)
    assert {name: found for name, found in digests(store, "**/*").items() if name != "run.lock"} == {
        name: found for name, found in before.items() if name != "run.lock"
    }
    ended = invoke(verb, store.path, *others, "--engine", "dask", "--workers", "2")
    assert "--workers is for this machine" in ended.output
    assert ended.exit_code == 2


@dataclass(frozen=True)
class Deadly(CheckFile):
    """A check whose process may die of a signal."""

    by: signal.Signals | None = None

    def run(self) -> list[Checked]:
        if self.by is not None:
            os.kill(os.getpid(), self.by)
        return super().run()


def test_a_file_whose_reader_dies_is_reported_alone_and_damaged_only_if_it_crashed(finished: FeatureStore) -> None:
    root = Root(finished.path)
    names = root.files("partitions", ".parquet")
    deadly = {names[3]: signal.SIGSEGV, names[8]: signal.SIGKILL}
    tasks = [Deadly(0, root, name, by=deadly.get(name)) for name in names]
    errors = [checked.error for _, checked in check_files(tasks, checkers=TWO, n_bytes=0)]
    assert [index for index, error in enumerate(errors) if error is not None] == [3, 8]
    assert isinstance(errors[3], CorruptFile)
    assert f"{names[3]} crashes the process that reads it (SIGSEGV: segmentation fault)" in str(errors[3])
    assert isinstance(errors[8], UnreadableFile)
    assert "the process that reads it died (SIGKILL: killed, most likely out of memory)" in str(errors[8])


def test_results_come_in_the_order_of_the_files(finished: FeatureStore) -> None:
    root = Root(finished.path)
    names = root.files("partitions", ".parquet")[::-1]
    found = check_files((CheckFile(0, root, name) for name in names), checkers=TWO, n_bytes=0)
    assert [(task.name, checked.error) for task, checked in found] == [(name, None) for name in names]


def test_a_partition_is_read_once_for_its_rows_and_its_checksum(tmp_path: Path) -> None:
    if not IO_COUNTERS.exists():
        pytest.skip("this system does not count what a process reads")
    path, rng = tmp_path / "p", np.random.default_rng(1)
    manifest = {"format": FORMAT, "stage": "quantize", "input_payload": "0" * 16}
    writer = PartitionWriter(path, layout=Layout(64, "uint8", keypoints=False), manifest=manifest)
    for i in range(100):
        writer.write(Row(i, f"{i}.jpg", "ok", None, rng.integers(0, 256, (1800, 64)).astype(np.uint8)))
    writer.close()
    before = _bytes_read()
    with PartitionFile(path, hashed=True) as file:
        n_rows = sum(1 for _ in file.rows())
        checksum = file.checksum()
    assert _bytes_read() - before < 1.02 * path.stat().st_size
    assert (n_rows, checksum) == (100, file_digest(path))


def _bytes_read() -> int:
    return int(IO_COUNTERS.read_text(encoding="ascii").split()[1])


@pytest.mark.parametrize(("deep", "enough"), [(False, WORTH_WORKERS), (True, WORTH_WORKERS_DEEP)])
def test_the_default_is_workers_where_they_save_more_than_their_start(deep: bool, enough: int) -> None:
    assert default_workers(enough, deep=deep) == all_cores()
    assert default_workers(enough - 1, deep=deep) == 0


def test_a_gigabyte_has_workers_only_where_it_is_decoded(
    finished: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("featurestore.maintenance.check_files.WORTH_WORKERS_DEEP", 1)
    with caplog.at_level("DEBUG", "featurestore.maintenance"):
        finished.verify()
        finished.verify(deep=True)
    used = [int(found[1]) for found in map(re.compile(r"with (\d+) workers").search, caplog.messages) if found]
    assert used == [0, all_cores()]


def test_a_check_copies_what_it_reads(finished: FeatureStore, tmp_path: Path) -> None:
    (name, checksum) = rows(finished.path, "SELECT path, checksum FROM partitions WHERE stage = 'extract'")[0]
    (checked,) = CheckFile(0, Root(finished.path), name, copy=tmp_path / "copy").run()
    assert checked.described is not None
    assert checked.described.row.checksum == checksum
    assert (tmp_path / "copy").read_bytes() == (finished.path / name).read_bytes()


def test_partitions_are_read_once_to_check_and_to_copy_them(
    emptied: FeatureStore, finished: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[str]()

    def count(path: Path, *args: Any) -> HashedFile:
        opened.append(path.relative_to(finished.path).as_posix())
        return HashedFile(path, *args)

    for module in (partition, merge):
        monkeypatch.setattr(module, "open_hashed", count)
    emptied.merge(finished.path, workers=0)
    assert sorted(opened) == sorted(path for (path,) in rows(finished.path, "SELECT path FROM partitions"))


def test_a_disk_without_room_for_a_copy_is_said(finished: FeatureStore, tmp_path: Path) -> None:
    ((name,), *_) = rows(finished.path, "SELECT path FROM partitions WHERE stage = 'extract'")
    with largest_file(1000), pytest.raises(NotEnoughSpace, match=f"{name} could not be written"):
        CheckFile(0, Root(finished.path), name, copy=tmp_path / "copy").run()
