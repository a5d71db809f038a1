"""The script for a SLURM job array makes, with merge, what one machine makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore import FeatureStore
from tests.small import digests, make_small, small_store
from tests.warm import warm_program

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parent.parent.parent


def run_task(store: Path, number: int, n_tasks: int, *, programs: Path = Path(sys.executable).parent) -> str:
    """Run a task of the array, whose first number is 5, with the program in the folder ``programs``."""
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "STORE": str(store),
        "SLURM_ARRAY_TASK_ID": str(5 + number),
        "SLURM_ARRAY_TASK_MIN": "5",
        "SLURM_ARRAY_TASK_COUNT": str(n_tasks),
    }
    script = ROOT / "docs" / "slurm-extract.sh"
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_an_array_and_merge_make_the_same_bytes(tmp_path: Path) -> None:
    make_small(tmp_path / "images", n=3)
    alone, store = (small_store(tmp_path / name, tmp_path / "images", chunk_size=1) for name in ("alone", "a store"))
    alone.run(workers=0)
    with warm_program(tmp_path / "bin") as programs:
        for number in (0, 1, 1):  # the last one is submitted again
            assert run_task(store.path, number, 2, programs=programs) == ""
    parts = sorted(tmp_path.glob("a store.part-*"))
    extracted = [FeatureStore(part).sql("SELECT chunk_id FROM partitions ORDER BY 1").fetchall() for part in parts]
    assert extracted == [[(0,)], [(1,), (2,)]]
    store.merge(*parts)
    store.run(workers=0)
    assert digests(store) == digests(alone)


def test_more_tasks_than_chunks(tmp_path: Path) -> None:
    make_small(tmp_path / "images", n=2)
    store = small_store(tmp_path / "store", tmp_path / "images")
    assert run_task(store.path, 0, 3) == "nothing to do: 1 chunks for 3 tasks\n"
    assert list(tmp_path.glob("store.part-*")) == []
