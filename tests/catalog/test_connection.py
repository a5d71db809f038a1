"""A DuckDB that is kept, and files that are open in it for a moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from featurestore.catalog.catalog import StoreCatalog
from featurestore.catalog.connection import Instance
from featurestore.catalog.statements import query_value
from tests import recycled
from tests.small import Unlocked


def ask(instance: Instance, path: Path, query: str, *, read_only: bool = True) -> list[int]:
    instance.attach(path, read_only=read_only)
    with instance.attached() as connection:
        rows = connection.execute(query).fetchall()
    return [n for (n,) in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "it's a file.duckdb"
    ask(Instance(), path, "CREATE TABLE numbers AS SELECT 1 AS n", read_only=False)
    return path


def test_a_file_is_open_for_a_moment_and_not_locked_after_it(path: Path) -> None:
    instance = Instance(threads=1)
    ask(instance, path, "INSERT INTO numbers VALUES (2)", read_only=False)
    other = f"import duckdb; print(duckdb.connect({str(path)!r}).sql('SELECT sum(n) FROM numbers').fetchall())"
    ended = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
    assert ended.stdout == "[(3,)]\n", ended.stderr
    assert not path.with_name(f"{path.name}.wal").exists()
    assert ask(instance, path, "SELECT n FROM numbers ORDER BY n") == [1, 2]


def test_nothing_is_left_of_one_opening_in_the_next(path: Path) -> None:
    instance = Instance()
    ask(instance, path, "CREATE TEMP TABLE mine AS SELECT 1 AS n")
    with pytest.raises(duckdb.Error, match="mine"):
        ask(instance, path, "SELECT n FROM mine")


def test_after_an_exception_it_is_closed_and_lets_go_of_the_file(path: Path) -> None:
    instance = Instance()
    instance.attach(path, read_only=False)
    with pytest.raises(duckdb.Error, match="Could not convert"), instance.attached() as connection:
        connection.execute("INSERT INTO numbers VALUES (2), ('x')")
    assert not instance.is_open
    assert ask(Instance(), path, "SELECT n FROM numbers") == [1]  # and nothing was committed


def test_what_is_read_only_can_not_be_changed(path: Path) -> None:
    with pytest.raises(duckdb.Error, match="read-only"):
        ask(Instance(), path, "INSERT INTO numbers VALUES (2)")


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 1000)
    with pytest.raises(duckdb.Error, match="not a valid DuckDB"):
        Instance().attach(tmp_path / "text", read_only=True)


def test_a_catalog_goes_on_after_a_failure(tmp_path: Path) -> None:
    catalog = StoreCatalog(Unlocked(tmp_path))
    catalog.migrate()
    for opening in (catalog.transaction, catalog.reading):
        with pytest.raises(duckdb.Error, match="Could not convert"), opening() as connection:
            connection.execute("SELECT CAST('x' AS INTEGER)")
        with opening() as connection:
            assert query_value(connection, "SELECT count(*) FROM runs") == 0


def test_a_child_process_leaves_its_parents_instance_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb, "connect", recycled.new)
    instance = Instance()
    assert ask(instance, path, "SELECT n FROM numbers") == [1]
    if not (child := os.fork()):
        os._exit(0 if _is_renewed(instance, path) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ask(instance, path, "SELECT n FROM numbers") == [1]
    instance.close()


def _is_renewed(instance: Instance, path: Path) -> bool:
    """To close it would crash: DuckDB's threads have stayed with the parent."""
    known = instance.is_open
    instance.close()
    del instance
    return not known and ask(Instance(), path, "SELECT n FROM numbers") == [1]
