"""A store whose files are a colleague's: readers read without a lock, and writers get one line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.storage import CATALOG
from tests.conftest import Samples
from tests.warm import run_warm

COLLEAGUE = 12345


def ordinary(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as an ordinary user."""
    done = run_warm("tests.reliability.ordinary", *arguments)
    if done.returncode == 77:
        pytest.skip("this user can't give up what root may do")
    return done


def give_away(*paths: Path) -> None:
    """Make files a colleague's, who lets others only read them."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for path in paths:
        os.chown(path, COLLEAGUE, COLLEAGUE)
        path.chmod(0o755 if path.is_dir() else 0o644)


def assert_refused(done: subprocess.CompletedProcess[str], path: Path) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path} belongs to user {COLLEAGUE} and can't be written by ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def shared(store: FeatureStore) -> FeatureStore:
    """A store in whose folders all may write, and whose files are a colleague's."""
    give_away(*(path for path in store.path.rglob("*") if path.is_file()))
    return store


def test_its_readers_read(shared: FeatureStore) -> None:
    before = sorted(os.walk(shared.path))
    for arguments in (
        ("status", shared.path),
        ("sql", shared.path, "SELECT count(*) FROM quantized"),
        ("verify", shared.path),
        ("prune", shared.path, "--dry-run"),
        ("run", shared.path, "--dry-run"),
    ):
        done = ordinary(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    assert sorted(os.walk(shared.path)) == before


@pytest.mark.parametrize("verb", ["run", "ingest", "prune", "rebuild", "verify --repair"])
def test_its_writers_get_one_line(shared: FeatureStore, verb: str) -> None:
    name, *options = verb.split()
    done = ordinary(name, shared.path, *options)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {shared.path / CATALOG} belongs to user {COLLEAGUE} and can't be written by "
    )
    assert done.stderr.count("\n") == 1


def test_a_folder_that_belongs_to_a_colleague_is_named(store: FeatureStore) -> None:
    folder = next((store.path / "partitions" / "extract").iterdir())
    give_away(folder)
    done = ordinary("run", store.path)
    assert_refused(done, folder)


def test_a_store_can_not_be_made_in_a_colleagues_folder(samples: Samples, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    give_away(folder)
    done = ordinary("init", folder / "store", "--images", samples.images, "--dataset", samples.dataset)
    assert_refused(done, folder)
