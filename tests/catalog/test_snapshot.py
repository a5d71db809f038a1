"""The copy of the catalog that questions are answered from."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.catalog.runs import update_run
from featurestore.query.sql import open_query
from featurestore.storage import CATALOG
from featurestore.system import scratch
from tests.small import context_of

DIE_AFTER_COMMIT = """
import os, sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("UPDATE runs SET host = 'elsewhere'")
os._exit(9)
"""


def test_what_a_killed_writer_had_committed_is_seen(store: FeatureStore) -> None:
    path = store.path / "catalog.duckdb"
    subprocess.run([sys.executable, "-c", DIE_AFTER_COMMIT, str(path)], check=False)
    assert path.with_name("catalog.duckdb.wal").is_file()
    assert store.sql("SELECT DISTINCT host FROM runs").fetchall() == [("elsewhere",)]


def test_a_question_holds_up_no_writer_and_sees_nothing_of_it(store: FeatureStore) -> None:
    context = context_of(store)
    with open_query(context, "runs") as (connection, _):
        (run_id,) = connection.sql("SELECT min(run_id) FROM runs").fetchall()[0]
        with context.catalog.transaction() as transaction:
            update_run(transaction, run_id, host="elsewhere")
        assert connection.sql("SELECT count(*) FROM runs WHERE host = 'elsewhere'").fetchall() == [(0,)]
    assert store.sql("SELECT count(*) FROM runs WHERE host = 'elsewhere'").fetchall() == [(1,)]


def open_copies() -> set[Path]:
    """The copies of catalogs that this process has open, where the system tells."""
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return {path for path in links if "featurestore-" in str(path) and CATALOG in path.name}


@pytest.mark.skipif(not scratch.MEMORY.is_dir(), reason="the system has no files in memory")
@pytest.mark.parametrize("most", [scratch.MOST_IN_MEMORY, 1], ids=["in memory", "too large for memory"])
def test_the_copy_is_in_memory_if_it_is_not_too_large(
    finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "MOST_IN_MEMORY", most)
    before = open_copies()  # which open stores keep
    with open_query(context_of(finished), "images") as (connection, _):
        (copy,) = open_copies() - before
        assert copy.is_relative_to(scratch.MEMORY if most > 1 else tmp_path)
        # A killed process leaves no copy: it has no name any more, and can still be read.
        assert [path for path in scratch.MEMORY.glob("featurestore-*") if path == copy.parent] == []
        assert list(tmp_path.glob("*/*")) == []
        assert connection.sql("SELECT count(*) FROM images").fetchall() == [(len(finished.load()),)]
    assert open_copies() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("room", "free"), [(1, 2**40), (2**40, 1)])
def test_a_file_in_memory_needs_room_there_and_memory(monkeypatch: pytest.MonkeyPatch, room: int, free: int) -> None:
    usage = shutil.disk_usage(tempfile.gettempdir())._replace(free=room)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(scratch, "free_memory", lambda: free)
    with scratch.folder_in_memory(1) as folder:
        assert folder is None
