"""The copy of the catalog that questions are answered from."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.catalog.runs import update_run
from featurestore.query.sql import open_query
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
    with open_query(context, "runs") as connection:
        (run_id,) = connection.sql("SELECT min(run_id) FROM runs").fetchall()[0]
        with context.catalog.transaction() as transaction:
            update_run(transaction, run_id, host="elsewhere")
        assert connection.sql("SELECT count(*) FROM runs WHERE host = 'elsewhere'").fetchall() == [(0,)]
    assert store.sql("SELECT count(*) FROM runs WHERE host = 'elsewhere'").fetchall() == [(1,)]


def test_the_copy_is_removed(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with open_query(context_of(store), "images"):
        assert [path.name for path in (tmp_path / "temporary").glob("*/*")] == ["catalog.duckdb"]
    assert list((tmp_path / "temporary").iterdir()) == []
