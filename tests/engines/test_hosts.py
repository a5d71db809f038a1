"""Processes, limits and environments in which a run can't have its workers: one line, and no image is blamed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore import FeatureStore
from tests.conftest import LONG
from tests.small import copy, make_small, small_store

ROOT = Path(__file__).parent.parent.parent

DAEMONIC = """
import multiprocessing, sys

def task(path, workers):
    from featurestore import FeatureStore, FeatureStoreError

    try:
        return len(FeatureStore(path).run("extract", workers=workers))
    except FeatureStoreError as error:
        return f"{type(error).__name__}: {error}"

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(task, (sys.argv[1], 2)))
        print(pool.apply(task, (sys.argv[1], 0)))
"""


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of three images of which nothing is made."""
    folder = tmp_path_factory.mktemp("new")
    make_small(folder / "images", n=3)
    return small_store(folder / "store", folder / "images")


def test_a_daemonic_process_is_told_to_work_without_workers(new: FeatureStore, tmp_path: Path) -> None:
    script = tmp_path / "task.py"
    script.write_text(DAEMONIC, encoding="utf-8")
    store = copy(new, tmp_path / "s")
    command = [sys.executable, str(script), str(store.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=importing())
    first, second = done.stdout.splitlines()
    assert first.startswith("EngineLost: this process is daemonic")
    assert "workers=0" in first
    assert second == "1"
    assert store.status().stages[0].images == {"ok": 3}


def importing(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOKY_MAX_CPU_COUNT", "abc"),
        ("LOKY_PICKLER", "no_such_module"),
        *([("LOKY_MAX_DEPTH", "0"), ("LOKY_PICKLER", "")] if LONG else []),
    ],
)
def test_odd_variables_of_joblib_are_named_or_ignored(
    new: FeatureStore, tmp_path: Path, variable: str, value: str
) -> None:
    store = copy(new, tmp_path / "s")
    command = [sys.executable, "-m", "featurestore", "run", str(store.path), "extract", "--workers", "2"]
    env = importing(**{variable: value})
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    if done.returncode == 0:
        assert done.stderr == ""
        assert store.status().stages[0].images == {"ok": 3}
    else:
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert store.status().stages[0].n_done == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of address space that is kept")
def test_a_limit_of_memory_is_one_line(new: FeatureStore) -> None:
    script = 'ulimit -v 700000 && exec "$@"'  # kB: the modules fit, and little else
    command = ["/bin/sh", "-c", script, "sh", sys.executable, "-m", "featurestore", "sql", str(new.path), "FROM images"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=importing())
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    # The C library may end the process itself, and says why once for each thread that finds no memory: also at the end.
    theirs = "cannot allocate memory for thread-local data: ABORT"
    assert len(set(done.stderr.splitlines()) - {theirs}) <= 1
