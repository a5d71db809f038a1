"""A store on a disk that can't be written: everything reads, and no lock is taken."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from featurestore import FeatureStore
from featurestore.errors import NotWritable
from featurestore.storage import CATALOG, Root

CHECKOUT = Path(__file__).parent.parent.parent
UNSHARED = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
store = sys.argv[1].encode()
def mount(source, flags):
    if libc.mount(source, store if flags & MS_BIND else b"/", None, flags, None):
        sys.exit(77)
if libc.unshare(CLONE_NEWNS):
    sys.exit(77)
mount(None, MS_REC | MS_PRIVATE)
mount(store, MS_BIND)
mount(None, MS_REMOUNT | MS_BIND | MS_RDONLY)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def read_everything(store: FeatureStore) -> None:
    assert store.status().stages[-1].n_done == 4
    assert store.sql("SELECT count(*) FROM quantized").fetchall() == [(26,)]
    assert len(store.load()) == 26
    assert store.descriptors("china/left-000.jpg").shape[1] == 64
    assert store.info("china/left-000.jpg").filename == "china/left-000.jpg"
    assert store.verify(deep=True).ok
    assert store.prune("quantize", dry_run=True).n_bytes > 0


@pytest.fixture
def read_only(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A finished store that this user may not write. Root may write everything, so it is told otherwise."""
    for lock in store.path.glob("*.lock"):
        lock.unlink()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **rest: not mode & os.W_OK and access(path, mode, **rest))
    return store


def test_it_is_read_without_locks(read_only: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.walk(read_only.path))
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda *_, **__: pytest.fail("a lock was taken"))
    read_everything(read_only)
    assert sorted(os.walk(read_only.path)) == before


@pytest.mark.parametrize(
    ("verb", "arguments"), [("run", []), ("ingest", []), ("rebuild", []), ("prune", []), ("merge", ["x"])]
)
def test_it_can_not_be_changed(read_only: FeatureStore, verb: str, arguments: list[str], tmp_path: Path) -> None:
    shutil.copytree(read_only.path, tmp_path / "x")
    with pytest.raises(NotWritable, match=r"belongs to \S+ and can't be written by \S+; work on a copy or in another"):
        getattr(read_only, verb)(*(tmp_path / argument for argument in arguments))
    with pytest.raises(NotWritable, match="work on a copy"):
        read_only.verify(repair=True)


def test_it_is_read_from_a_disk_that_is_mounted_read_only(store: FeatureStore) -> None:
    """The same without pretending, where this user may mount."""
    if not hasattr(ctypes.CDLL(None), "unshare"):
        pytest.skip("no unshare() here")
    for verb in ("status", "verify"):
        command = [sys.executable, "-c", UNSHARED, str(store.path), str(CHECKOUT / "cli.py"), verb, str(store.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 77:
            pytest.skip("this user may not mount a folder read-only")
        assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command[:5], "run", str(store.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {store.path} is on a disk that is mounted read-only; mount it for writing, or work on a copy\n"
    )


def test_what_a_killed_writer_left_is_read_too(read_only: FeatureStore) -> None:
    """DuckDB keeps what it had not yet moved into the catalog beside it; a reader that may not write plays it back."""
    script = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('SET wal_autocheckpoint = \"1GB\"'); "
        "c.execute(\"UPDATE runs SET host = 'elsewhere'\"); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(read_only.path / CATALOG)], check=True)
    assert (read_only.path / f"{CATALOG}.wal").exists()
    assert not Root(read_only.path).writable
    assert read_only.sql("SELECT DISTINCT host FROM runs").fetchall() == [("elsewhere",)]
    assert (read_only.path / f"{CATALOG}.wal").exists()
