"""Large images: never more at work than there is memory for, and the same bytes whatever that is."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from featurestore import FeatureStore
from featurestore.engines import Task
from featurestore.engines.inline import InlineEngine
from featurestore.errors import ConfigError
from featurestore.images import n_pixels
from featurestore.pipeline import Options
from featurestore.pipeline.image_block import ImageBlock, Large
from featurestore.pipeline.large_images import LargeImage, LargeImages
from featurestore.pipeline.runner import run_each
from featurestore.stages import Extract
from featurestore.storage import Draft
from featurestore.system import memory
from tests.broken_images import encoded, picture
from tests.conftest import LONG
from tests.small import context_of, copy, digests, make_small, small_store

T = TypeVar("T")
MB = 1_000_000
BYTES = Extract().extractor.bytes_per_pixel
SMALL_SIZE, LARGE_SIZE = (80, 60), (200, 150)  # of which SIFT takes 1.2 and 7.2 MB
SIZES = {1: LARGE_SIZE, 4: LARGE_SIZE, 5: (210, 150), 10: LARGE_SIZE}


class Noting(InlineEngine):
    """Runs tasks in another thread, and notes which blocks are at work whenever one is added."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.at_work: list[ImageBlock] = []
        self.moments: list[list[ImageBlock]] = []
        self._thread = ThreadPoolExecutor(1)

    def submit(self, task: Task[T]) -> Future[list[T]]:
        if isinstance(task, ImageBlock):
            self.at_work.append(task)
            self.moments.append(list(self.at_work))
        return self._thread.submit(self._run, task)

    def _run(self, task: Task[T]) -> list[T]:
        results = task.run()
        if isinstance(task, ImageBlock):
            self.at_work.remove(task)
        return results

    def close(self) -> None:
        self._thread.shutdown()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Thirteen pictures in three chunks, four of them large; one file is missing, and one is no picture."""
    folder = tmp_path_factory.mktemp("large")
    make_small(folder / "images", size=SMALL_SIZE)
    for number, size in SIZES.items():
        (folder / "images" / f"{number:03d}.png").write_bytes(encoded(".png", picture(*size, seed=number)))
    (folder / "images" / "007.png").unlink()
    (folder / "images" / "008.png").write_bytes(b"no picture")
    return small_store(folder / "store", folder / "images")


@pytest.fixture(scope="module")
def expected(fresh: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = copy(fresh, tmp_path_factory.mktemp("expected") / "store")
    store.run("extract", workers=0)
    return digests(store)


# Shares of 0.06 to 25 MB: every image is large, or four, or none. The long form has three more in between.
@pytest.mark.parametrize(
    ("megabytes", "workers"),
    [(0.25, 2), (5, 4), (10, 2), (10, 4), (100, 2), *([(0.25, 4), (5, 2), (100, 4)] if LONG else [])],
)
def test_no_more_is_at_work_than_there_is_memory_for(
    fresh: FeatureStore, expected: dict[str, str], tmp_path: Path, megabytes: float, workers: int
) -> None:
    store, engine, max_bytes = copy(fresh, tmp_path / "store"), Noting(workers), round(megabytes * MB)
    options = Options(("extract",), workers=workers, max_bytes=max_bytes)
    try:
        run_each(context_of(store), engine, options, ["extract"])
    finally:
        engine.close()
    assert digests(store) == expected
    share = max_bytes // (2 * workers)
    for blocks in engine.moments:
        large = [needed(block) for block in blocks if block.max_bytes is None]
        assert sum(large) <= max_bytes // 2 + share or len(blocks) == 1
    apart = {block.images[0][0] for blocks in engine.moments for block in blocks if block.max_bytes is None}
    assert apart == {i for i in range(13) if i not in (7, 8) and BYTES * area(i) > share}


def area(image_id: int) -> int:
    width, height = SIZES.get(image_id, SMALL_SIZE)
    return width * height


def needed(block: ImageBlock) -> int:
    return sum(BYTES * area(image_id) for image_id, _ in block.images)


def test_workers_with_little_memory_give_the_same_bytes(
    fresh: FeatureStore, expected: dict[str, str], tmp_path: Path
) -> None:
    store = copy(fresh, tmp_path / "store")
    store.run("extract", workers=2, max_memory=0.005)
    assert digests(store) == expected


def test_a_block_ends_before_a_large_image(fresh: FeatureStore, tmp_path: Path) -> None:
    store, engine = copy(fresh, tmp_path / "store"), Noting(2)
    run_each(context_of(store), engine, Options(("extract",), workers=2), ["extract"])
    engine.close()
    images = tuple((number, f"{number:03d}.png") for number in (2, 3, 4, 6))
    block = replace(engine.moments[0][0], images=images, seconds=60, max_bytes=2_500_000)
    (draft,) = block.run()
    assert isinstance(draft, Draft)
    assert draft.block.image_ids == (2, 3)
    assert replace(block, images=images[2:]).run() == [Large(200 * 150 * BYTES)]


def test_large_images_take_turns() -> None:
    queue = LargeImages(100 * MB, workers=5)
    assert queue.share == 10 * MB
    found = [LargeImage(0, (i, f"{i}.png"), n * MB) for i, n in enumerate([30, 30, 20, 90, 20])]
    for image in found:
        queue.add(image)
    assert [queue.pop(idle=False) for _ in range(3)] == [found[0], found[1], None]  # 60 MB, and no more
    assert not queue.stop_others
    queue.finish(0)
    assert queue.pop(idle=False) == found[2]
    assert queue.stop_others  # the next needs nearly all
    assert queue.pop(idle=False) is None
    queue.finish(1)
    queue.finish(2)
    assert queue.pop(idle=False) is None, "a small image is at work"
    assert queue.pop(idle=True) == found[3]
    assert queue.stop_others
    assert queue.pop(idle=False) is None
    queue.finish(3)
    assert not queue.stop_others
    assert queue.pop(idle=True) == found[4]
    assert queue.pop(idle=True) is None


def test_memory_is_divided_by_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert LargeImages(None, workers=2).share is None, "the system does not say"
    (tmp_path / "meminfo").write_text("MemAvailable: 1000 kB\n", encoding="ascii")
    assert LargeImages(None, workers=2).share == 230_400
    assert LargeImages(4 * MB, workers=2).share == MB
    assert LargeImages(None, workers=1).share is None, "one image is extracted at a time"


def test_pixels_of_what_can_not_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "a.png").write_bytes(encoded(".png", picture(40, 30)))
    assert n_pixels(str(tmp_path / "a.png")) == 1200
    for name in ("text.png", "none.png", ".", "a.png/b", "\0"):
        assert n_pixels(str(tmp_path / name)) == 0


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_odd_amounts_of_memory_are_refused(fresh: FeatureStore, value: float) -> None:
    with pytest.raises(ConfigError, match=r"^max_memory is in GB and more than 0, not "):
        fresh.run(max_memory=value)
