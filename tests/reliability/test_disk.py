"""A disk without room: a clear error, nothing half-written on record, and the next run goes on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import NotEnoughSpace
from featurestore.storage import CATALOG
from featurestore.system import room_on_disk
from tests.catalogs import tables
from tests.conftest import LONG
from tests.crash.conftest import Ground, ground
from tests.crash.harness import ROOT, Ended, finish, photograph, run, start
from tests.crash.test_workers import SITE
from tests.faults import can_fail_syscalls

__all__ = ["ground"]
MESSAGE = re.compile(
    r"error: (File too large|No space left on device): .+ could not be written; nothing half-written is recorded\. "
    r"Make room on the disk and run the same command again: what is done stays done\n"
)


def run_limited(limit: int, kind: str, *arguments: str | Path) -> Ended:
    room = json.dumps([limit, kind])
    # Python doesn't notice that the bytecode of a module was cut off, and reads it in every later process.
    environment = {"PYTHONPATH": f"{SITE}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"FEATURESTORE_TEST_ROOM": room} if kind else {}
    return finish(start(room, *arguments, module="tests.crash.limited", **environment))


def assert_told_and_clean(ended: Ended, store: Path) -> None:
    assert ended.code == 1, ended
    assert MESSAGE.fullmatch(ended.err), ended.err
    assert not list(store.rglob(".tmp-*"))
    recorded = {store / path for (path,) in FeatureStore(store).sql("SELECT path FROM partitions").fetchall()}
    assert recorded <= set((store / "partitions").rglob("*.parquet"))


KINDS = [
    "blocks/extract",
    "partitions/extract",
    "models/fit_pca",
    "partitions/project",
    "models/fit_scale",
    "partitions/quantize",
]


@pytest.mark.parametrize("workers", ["0", "1"] if LONG else ["1"])  # a worker writes them itself
def test_no_room_in_any_stage(ground: Ground, tmp_path: Path, workers: str) -> None:
    store = ground.store(tmp_path / "store")
    for kind in KINDS:
        ended = run_limited(700, kind, "run", store, "--workers", workers)
        assert_told_and_clean(ended, store)
        assert kind in ended.err or "state.npz" in ended.err
    FeatureStore(store).run(workers=0)
    assert photograph(store) == ground.expected


def test_no_room_for_the_catalog(ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    size = (store / CATALOG).stat().st_size
    ended = run_limited(size // 2, "", "run", store, "--workers", "0")
    assert_told_and_clean(ended, store)
    assert CATALOG in ended.err
    FeatureStore(store).run(workers=0)
    assert photograph(store) == ground.expected


@pytest.mark.parametrize("kilobytes", [50, 600, 2500])
def test_no_room_for_a_rebuilt_catalog(ground: Ground, tmp_path: Path, kilobytes: int) -> None:
    """DuckDB closes a file without a word although it can't be written; the old catalog has to stay."""
    store = ground.store(tmp_path / "store", state="whole")
    before = tables(store)
    assert before["runs"]
    ended = run_limited(kilobytes << 10, "", "rebuild", store)
    assert_told_and_clean(ended, store)
    assert tables(store) == before


@pytest.mark.skipif(not can_fail_syscalls(), reason="needs seccomp, and the numbers of this processor's system calls")
@pytest.mark.parametrize("verb", ["ingest", "rebuild"])
@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("fdatasync", "EIO", "can't be written: FATAL Error: fsync failed; nothing is known to be wrong"),
        ("pwrite64", "EIO", "can't be written: Input/output error; nothing is known to be wrong"),
        ("pwrite64", "EROFS", "can't be written by"),
    ],
)
def test_a_catalog_on_a_failing_disk_is_not_called_damaged(
    ground: Ground, tmp_path: Path, verb: str, call: str, code: str, says: str
) -> None:
    store = ground.store(tmp_path / "store", state="whole")
    before = tables(store)
    changed = tmp_path / "changed.csv"
    changed.write_text("".join(ground.dataset.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]))
    rest = ("--dataset", changed, "--yes") if verb == "ingest" else ()
    ended = finish(start(call, code, verb, store, *rest, module="tests.crash.failing", PYTHONPATH=str(ROOT)))
    assert ended.code == 1, ended
    assert re.fullmatch(rf"error: {re.escape(str(store / CATALOG))} .*{re.escape(says)}.*\n", ended.err), ended.err
    assert "rebuild" not in ended.err
    assert FeatureStore(store).run(workers=0) == []  # which records the dataset file of an ingest that failed
    assert FeatureStore(store).verify().ok
    kept = tables(store)
    assert {name: kept[name] for name in ("partitions", "models", "runs")} == {
        name: before[name] for name in ("partitions", "models", "runs")
    }


@pytest.mark.parametrize("limit", [200, 3000])
def test_no_room_for_a_new_store(ground: Ground, tmp_path: Path, limit: int) -> None:
    verb = ("init", tmp_path / "store", "--images", ground.images, "--dataset", ground.dataset, "--chunk-size", "9")
    ended = run_limited(limit, "", *verb)
    assert ended.code == 1, ended
    assert MESSAGE.fullmatch(ended.err), ended.err
    assert not list(tmp_path.iterdir())
    assert run(*verb).code == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small tmpfs; the tests with a limit on file sizes stand in for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(ground: Ground, small_disk: Path) -> None:
    store, ballast = ground.store(small_disk / "store"), small_disk / "ballast"
    # As much as is left but for some kB, again and again, so that the disk is full at one place after the other.
    for room in (0, 300):
        ballast.unlink(missing_ok=True)
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(bytes(max(0, free - room * 1024)))
        ended = run("run", store, "--workers", "0")
        if ended.code:
            assert "Traceback" not in ended.err
            assert re.match(r"error: (No space left on device|this run will write about)", ended.err), ended.err
    ballast.unlink()
    store = Path(shutil.copytree(store, small_disk.parent / "copy"))
    FeatureStore(store).run(workers=0)
    assert photograph(store) == ground.expected


def test_a_disk_that_takes_no_more_files_says_so(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", str(small_disk)], check=True)
    (small_disk / "a").touch()
    message = r"^No space left on device for another file \(df -i shows how many it takes\): b could not be written; "
    with pytest.raises(NotEnoughSpace, match=message), room_on_disk("b"):
        (small_disk / "b").touch()
