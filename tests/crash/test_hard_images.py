"""An image at which the extractor raises, hangs or lacks something costs that image, if it is the image's fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.images import unread_twice
from tests.crash.conftest import Ground
from tests.crash.harness import left_in_session, photograph, run
from tests.crash.test_workers import COUNTS, FAILED, SILENT, poisoned, whole_store
from tests.small import configure

ROWS = "SELECT filename, status, error FROM failures WHERE stage = 'extract' ORDER BY image_id"


def others(store: FeatureStore, *but: str) -> list[Any]:
    return [row for row in store.sql(COUNTS).fetchall() if row[0] not in but]


def test_what_an_extractor_raises_costs_its_image(ground: Ground, tmp_path: Path) -> None:
    """What was lacking is tried again, when nothing else is at work."""
    path, mark = ground.store(tmp_path / "store"), tmp_path / "mark"
    poison = {
        "sift china/whole-000.jpg": "raise",
        "sift china/left-090.jpg": "memory",
        "sift flower/left-000.jpg": f"once {mark}-files files",
        "sift flower/whole-000.jpg": f"once {mark}-threads threads",
        "sift flower/right-090.jpg": f"once {mark}-memory memory",
    }
    ended = run("run", path, *SILENT, "extract", "--workers", "2", **poisoned(poison))
    assert (ended.code, ended.err) == (0, "")
    assert [len(list(tmp_path.glob(f"mark-{what}"))) for what in ("files", "threads", "memory")] == [1, 1, 1]
    store = FeatureStore(path)
    lost = {
        "china/whole-000.jpg": "KeyError: 'octave'",
        "china/left-090.jpg": "out of memory, with no other image at work",
    }
    assert dict(store.sql(FAILED).fetchall()) == lost
    assert others(store, *lost) == others(whole_store(ground), *lost)
    store.run("extract", workers=0, retry_failed=["crashed"])
    assert photograph(path) == ground.extracted


@pytest.mark.parametrize(("how", "reason"), [("files", "Too many open files"), ("threads", "can't start new thread")])
def test_what_no_image_is_to_blame_for_ends_the_run(ground: Ground, tmp_path: Path, how: str, reason: str) -> None:
    path = ground.store(tmp_path / "store")
    ended = run("run", path, *SILENT, "--workers", "2", **poisoned({"sift flower/left-000.jpg": how}))
    assert ended.code == 1
    assert ended.err.startswith(f"error: {reason}, although no other task was running, so no image is to blame. ")
    assert ended.err.count("\n") == 1
    assert FeatureStore(path).sql("SELECT * FROM extracted WHERE status = 'crashed'").fetchall() == []
    FeatureStore(path).run("extract", workers=0)
    assert photograph(path) == ground.extracted


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_extractor_that_fails_on_every_image_ends_the_run(ground: Ground, tmp_path: Path, workers: str) -> None:
    path = ground.store(tmp_path / "store")
    ended = run("run", path, *SILENT, "--workers", workers, **poisoned({"sift *": "raise"}))
    assert ended.code == 1
    assert ended.err.startswith("error: the extractor fails on every image: 20 images in a row, from ")
    assert ended.err.endswith(
        ", gave KeyError: 'octave'. Nothing of them is recorded; correct the extractor or its parameters, and run the "
        "same command again\n"
    )
    assert FeatureStore(path).sql("SELECT * FROM extracted WHERE status = 'crashed'").fetchall() == []
    FeatureStore(path).run("extract", workers=0)
    assert photograph(path) == ground.extracted


def test_an_image_that_takes_too_long_costs_itself(ground: Ground, tmp_path: Path) -> None:
    """Not even C code that never looks at a signal goes on; and what waits for a disk has ten times as long."""
    path = ground.store(tmp_path / "store")
    store = FeatureStore(path)
    configure(store, "extract", max_seconds=2)
    spinning = {"sift china/left-090.jpg": "spin", "clock": "1000", "cpu": "0.25"}
    ended = run("run", path, *SILENT, "extract", "--chunks", "0", "--workers", "2", **poisoned(spinning))
    assert (ended.code, ended.err) == (0, "")
    assert left_in_session(ended) == []
    waiting = {"sift flower/right-000.jpg": "wait", "clock": "1"}
    ended = run("run", path, *SILENT, "extract", "--workers", "2", **poisoned(waiting))
    assert (ended.code, ended.err) == (0, "")
    assert left_in_session(ended) == []
    lost = {
        "china/left-090.jpg": ("crashed", "took more than 2 CPU seconds"),
        "flower/right-000.jpg": ("unreadable", unread_twice("no answer within 20 seconds")),
    }
    assert {row[0]: row[1:] for row in store.sql(ROWS).fetchall() if row[1] != "truncated"} == lost
    assert others(store, *lost) == others(whole_store(ground), *lost)
    configure(store, "extract", max_seconds=1)  # what had more time than that has had it
    assert store.run("extract", workers=0) == []
    configure(store, "extract", max_seconds=3)
    assert [summary.n_images for summary in store.run("extract", workers=0)] == [2]
    assert photograph(path) == ground.extracted
