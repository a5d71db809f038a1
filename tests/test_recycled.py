"""Recycled instances of DuckDB: a user finds nothing of the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.faults import forbidden
from tests.recycled import Instances, new


class Counted:
    """Counts the instances that are made."""

    def __init__(self) -> None:
        self.made = 0

    def connect(self, *arguments: Any, **options: Any) -> Any:
        self.made += 1
        return new(*arguments, **options)


@pytest.fixture
def counted() -> Counted:
    return Counted()


def test_an_instance_is_used_again_with_nothing_of_a_user_before(counted: Counted, tmp_path: Path) -> None:
    instances = Instances(counted.connect)
    for _ in range(2):
        with instances.connect() as con:
            assert con.execute("SELECT current_setting('memory_limit') <> '7.0 MiB'").fetchall() == [(True,)]
            con.execute("SET memory_limit = '7MiB'")
            con.execute("CREATE TEMP TABLE numbers AS SELECT 1 AS n")
            con.execute(f"ATTACH '{tmp_path / 'a.duckdb'}' AS a")
            con.execute("DETACH a")
    assert counted.made == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE numbers (n INT)",
        "CREATE VIEW one AS SELECT 1",
        "ATTACH ':memory:' AS a",
        "SET lock_configuration = true",
    ],
)
def test_an_instance_in_which_something_is_left_is_closed(counted: Counted, statement: str) -> None:
    instances = Instances(counted.connect)
    instances.connect().close()
    with instances.connect() as con:
        con.execute(statement)
    instances.connect().close()
    assert counted.made == 2


def test_an_instance_in_doubt_and_one_of_another_configuration_are_not_used_again(counted: Counted) -> None:
    instances = Instances(counted.connect)
    with pytest.raises(duckdb.BinderException), instances.connect() as con:
        con.execute("SELECT nothing")
    con = instances.connect()
    con.execute("SET memory_limit = '1MiB'")
    con.execute("SET temp_directory = ''")
    with pytest.raises(duckdb.OutOfMemoryException), con:
        con.execute("SELECT list(range) FROM range(1000000)")
    assert counted.made == 1
    instances.connect(config={"threads": 1}).close()
    instances.connect(":memory:", config={}).close()
    assert counted.made == 3


def test_an_instance_with_more_rights_is_not_used_again(counted: Counted, tmp_path: Path) -> None:
    instances, path = Instances(counted.connect), tmp_path / "a.csv"
    path.write_text("n\n1\n")
    instances.connect().close()
    with forbidden(path), instances.connect() as con, pytest.raises(duckdb.IOException):
        con.execute(f"FROM read_csv('{path}')")
    assert counted.made == 2
