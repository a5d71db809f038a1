"""Nothing but what the store says itself goes to stderr, not even when the interpreter ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command

from featurestore import FeatureStore
from featurestore.catalog.revisions import HEAD, migration_sql
from tests.catalogs import change

ROOT = Path(__file__).parent.parent.parent


def stderr_of(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_library_user_is_left_in_peace(fresh: FeatureStore) -> None:
    code = f"""
import duckdb
from featurestore import FeatureStore
store = FeatureStore({str(fresh.path)!r})
images = store.sql('FROM images').arrow()
assert len(duckdb.sql('FROM images').fetchall())
store.sql('SELECT count(*) FROM extracted').df(); store.ingest(); store.status()
"""
    assert stderr_of("-c", code) == (0, "")


def test_so_is_a_process_that_upgrades_a_catalog_and_makes_one(fresh: FeatureStore, tmp_path: Path) -> None:
    change(fresh.path, migration_sql(command.downgrade, f"{HEAD}:0001"))
    images, store = tmp_path / "images", tmp_path / "store"
    images.mkdir()
    (images / "a.jpg").touch()
    code = f"""
from featurestore import FeatureStore
FeatureStore({str(fresh.path)!r}).ingest()
FeatureStore.create({str(store)!r}, images={str(images)!r})
"""
    assert stderr_of("-c", code) == (0, "")


def test_the_command_line_prints_nothing_more(fresh: FeatureStore) -> None:
    assert stderr_of("-m", "featurestore", "sql", str(fresh.path), "SELECT * FROM images") == (0, "")


def test_ctrl_c_while_modules_are_imported_is_no_traceback() -> None:
    code = """
import os, signal, sys

class Interrupting:
    def find_spec(name, *rest):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

from featurestore.__main__ import program
sys.meta_path.insert(0, Interrupting)
program()
"""
    assert stderr_of("-c", code) == (-signal.SIGINT, "")


def test_the_program_leaves_nothing_undone() -> None:
    last = "import atexit; atexit.register(print, 'last')"
    code = f"{last}; from featurestore.__main__ import leave; print('first'); leave(3)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "first\nlast\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_could_not_be_written_is_no_success() -> None:
    code = "from featurestore.__main__ import leave; print('first'); leave(0)"
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=full, check=False)
    assert done.returncode == 1


def test_an_error_is_one_line(fresh: FeatureStore) -> None:
    code, said = stderr_of("-m", "featurestore", "sql", str(fresh.path), "SELECT * FROM imagess, images")
    assert code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1
