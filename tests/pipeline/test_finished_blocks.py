"""Finished blocks of extract: a run goes on from them, and only from those that are its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.catalog import RunningStage, blocks, discard_blocks, versions
from featurestore.errors import NotEnoughSpace
from featurestore.pipeline import Options, run_stages
from featurestore.pipeline import extract_run as extraction
from featurestore.pipeline.estimate import SPARE
from featurestore.pipeline.extract_run import BLOCK_SECONDS, LONGEST, OVERTIME, block_seconds
from featurestore.progress import Silent, summary_line
from featurestore.storage import Root, Writer, block_names, read_block
from featurestore.storage.root import BLOCKS
from tests.broken_images import encoded, picture
from tests.faults import forbidden
from tests.once import copied, once
from tests.small import (
    Unlocked,
    configure,
    context_of,
    copy,
    digests,
    in_blocks,
    make_small,
    note_extractions,
    rows_of,
    small_store,
)

N, FINISHED = 13, 5


def test_blocks_are_longer_with_many_workers_and_shorter_at_first() -> None:
    assert [block_seconds(workers, since=3600) for workers in (0, 2, 200)] == [BLOCK_SECONDS] * 3
    assert block_seconds(400, since=3600) == 2 * BLOCK_SECONDS
    assert block_seconds(10_000, since=3600) == LONGEST
    assert OVERTIME * LONGEST <= 60  # at most a minute of work is lost with a worker
    assert block_seconds(1000, since=8) == 8


class StopAfterImages(Silent):
    """Ends a run in the middle of a chunk."""

    def __init__(self, n_images: int) -> None:
        self.left = n_images

    def advance(self, n_images: int) -> None:
        self.left -= n_images
        if self.left <= 0:
            raise KeyboardInterrupt


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks of 1, 1 and then of 3 images, however slow the machine is."""
    monkeypatch.setattr(extraction, "MAX_BLOCK", 3)
    monkeypatch.setattr(extraction, "block_seconds", lambda workers, *, since: 3600)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, one of which is broken. Not to be changed."""

    def make(folder: Path) -> None:
        make_small(folder, n=N, size=(80, 60))
        (folder / "002.png").write_bytes(b"no picture")

    return once(tmp_path_factory, "pictures-in-blocks", make)


@pytest.fixture(scope="module")
def begun(images: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of them, in one chunk, in which nothing was run. Not to be changed."""

    def make(folder: Path) -> None:
        small_store(folder / "store", images, chunk_size=N)

    return FeatureStore(copied(tmp_path_factory, "begun-blocks", make) / "store")


def with_images(store: FeatureStore, path: Path, images: Path) -> FeatureStore:
    """Return a copy of a store, whose images are those of another folder."""
    store = copy(store, path)
    configure(store, "store", images=str(images), dataset=str(images / "dataset.csv"))
    return store


@pytest.fixture(scope="module")
def whole(begun: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """What an undisturbed run makes of them. Not to be changed."""

    def make(folder: Path) -> None:
        copy(begun, folder / "store").run("extract", workers=0)

    return FeatureStore(copied(tmp_path_factory, "whole-blocks", make) / "store")


@pytest.fixture(scope="module")
def stopped(begun: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store whose first run was ended when `FINISHED` images were in blocks. Not to be changed: see `broken_off`."""

    def make(folder: Path) -> None:
        store = copy(begun, folder / "store")
        with pytest.MonkeyPatch.context() as patch:
            small_blocks(patch)
            stop(store, after=FINISHED)

    return FeatureStore(copied(tmp_path_factory, "stopped-blocks", make) / "store")


@pytest.fixture
def broken_off(stopped: FeatureStore, images: Path, tmp_path: Path) -> FeatureStore:
    """A store and images that the test may change; its first run ended in the middle of its chunk."""
    own = Path(shutil.copytree(images, tmp_path / "images"))  # with the times of the last change
    return with_images(stopped, tmp_path / "store", own)


def stop(store: FeatureStore, *, after: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_stages(context_of(store, StopAfterImages(after)), Options(("extract",), workers=0, **options))


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that are extracted from here on, in this process."""
    return note_extractions(monkeypatch)


def test_a_run_goes_on_from_the_finished_blocks(
    broken_off: FeatureStore, whole: FeatureStore, extracted: list[int]
) -> None:
    finished = in_blocks(broken_off)
    assert finished == list(range(FINISHED))
    assert not list(broken_off.path.rglob(".tmp-*"))
    (planned,) = broken_off.plan("extract")
    (summary,) = broken_off.run("extract", workers=0)
    assert sorted(extracted) == [i for i in range(N) if i not in finished]
    assert (planned.n_images, summary.n_images, summary.n_chunks) == (N - FINISHED, N - FINISHED, 1)
    assert digests(broken_off) == digests(whole)
    assert not (broken_off.path / BLOCKS).exists()


def test_what_an_earlier_run_has_extracted_is_told_apart(
    broken_off: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[RunningStage | None]()

    def look(*arguments: Any) -> None:  # the partition is recorded, and its blocks are still there
        seen.append(broken_off.status().running)
        discard_blocks(*arguments)

    monkeypatch.setattr(extraction, "discard_blocks", look)
    (summary,) = broken_off.run("extract", workers=0)
    (running,) = seen
    assert running is not None
    assert running.images_per_second is not None
    assert (running.n_done, round(running.images_per_second * running.seconds)) == (N, N - FINISHED)
    assert (summary.n_images, summary.n_before) == (N - FINISHED, FINISHED)
    assert "B with 5 images from before, in " in summary_line(summary)


def test_blocks_of_images_that_others_of_an_earlier_run_part_are_joined_in_order(
    broken_off: FeatureStore, whole: FeatureStore, extracted: list[int]
) -> None:
    root = Unlocked(broken_off.path)
    root.remove(block_names(root)[0].name)
    gone = set(range(FINISHED)) - set(in_blocks(broken_off))
    assert gone
    broken_off.run("extract", workers=0)
    assert sorted(extracted) == sorted({*gone, *range(FINISHED, N)})
    assert digests(broken_off) == digests(whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_block_that_takes_too_long_ends_early(
    begun: FeatureStore, whole: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    assert OVERTIME * BLOCK_SECONDS <= 20
    monkeypatch.setattr(extraction, "OVERTIME", 0)
    published: list[str] = []
    original = Writer.publish

    def publish(root: Writer, temporary: Path, name: str) -> None:
        published.append(name)
        original(root, temporary, name)

    monkeypatch.setattr(Writer, "publish", publish)
    store = copy(begun, tmp_path / "store")
    store.run("extract", workers=workers)
    names = [Path(name).name for name in published if name.startswith(BLOCKS)]
    assert sorted(name.rpartition("-")[0] for name in names) == sorted(f"block-{i}-1" for i in range(N))
    assert digests(store) == digests(whole)


Change = Callable[[FeatureStore, pytest.MonkeyPatch], None]


def another_library(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {**versions(), "opencv-python-headless": "99"}
    monkeypatch.setattr(blocks, "versions", lambda: found)


CHANGES: dict[str, Change] = {
    "a policy": lambda store, _: configure(store, "extract", max_pixels=40_000_000),
    "a parameter": lambda store, _: configure(store, "extract", sift={"contrast_threshold": 0.05}),
    "a library": another_library,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_recipe_takes_nothing_over(
    broken_off: FeatureStore, extracted: list[int], monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    change(broken_off, monkeypatch)
    (planned,) = broken_off.plan("extract")
    broken_off.run("extract", workers=0)
    assert sorted(extracted) == list(range(N))
    assert planned.n_images == N
    assert not (broken_off.path / BLOCKS).exists()


def other_picture(path: Path) -> None:
    path.write_bytes(encoded(".png", picture(seed=99)))


def other_time(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


@pytest.mark.parametrize("change", [other_picture, other_time, Path.unlink])
def test_the_block_of_an_image_that_was_replaced_is_made_again(
    begun: FeatureStore, broken_off: FeatureStore, extracted: list[int], change: Callable[[Path], None]
) -> None:
    images = Path(context_of(broken_off).images)
    root = Root(broken_off.path)
    (block,) = [b for n in block_names(root) if 4 in (b := read_block(root, n).block).image_ids]
    change(images / "004.png")
    broken_off.run("extract", workers=0)
    assert set(extracted) == {*block.image_ids, *range(FINISHED, N)}  # a missing file is tried twice
    expected = with_images(begun, broken_off.path.with_name("expected"), images)
    expected.run("extract", workers=0)
    assert digests(broken_off) == digests(expected)


def test_a_failed_row_in_a_block_is_tried_again_with_retry_failed(
    broken_off: FeatureStore, extracted: list[int]
) -> None:
    root = Root(broken_off.path)
    (block,) = [b for n in block_names(root) if 2 in (b := read_block(root, n).block).image_ids]
    broken_off.run("extract", workers=0, retry_failed=["missing"])
    assert 2 not in extracted
    configure(broken_off, "extract", sift={"contrast_threshold": 0.05})
    stop(broken_off, after=FINISHED)
    extracted.clear()
    broken_off.run("extract", workers=0, retry_failed=True)
    assert sorted(extracted) == sorted({*block.image_ids, *range(FINISHED, N)})


@pytest.fixture(scope="module")
def stopped_retry(begun: FeatureStore, images: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store with five images that failed and are there now, two of which a retry has made until it was ended.

    Not to be changed: see `retried`.
    """

    def make(folder: Path) -> None:
        own = Path(shutil.copytree(images, folder / "images"))
        hidden = [f"{i:03d}.png" for i in (1, 5, 7, 9, 12)]
        for name in hidden:
            (own / name).unlink()
        store = with_images(begun, folder / "store", own)
        with pytest.MonkeyPatch.context() as patch:
            small_blocks(patch)
            store.run("extract", workers=0)
            for name in hidden:
                shutil.copy2(images / name, own / name)
            stop(store, after=2, retry=("missing",))

    return FeatureStore(copied(tmp_path_factory, "stopped-retry", make) / "store")


@pytest.fixture
def retried(stopped_retry: FeatureStore, tmp_path: Path) -> FeatureStore:
    """Such a store, which the test may change."""
    return copy(stopped_retry, tmp_path / "retried")


def test_a_retry_goes_on_from_its_own_blocks(retried: FeatureStore, whole: FeatureStore, extracted: list[int]) -> None:
    assert in_blocks(retried) == [1, 5]
    assert retried.run("extract", workers=0) == []  # it asks for no retry, and does not end this one
    (planned,) = retried.plan("extract", retry_failed=["missing"])
    (summary,) = retried.run("extract", workers=0, retry_failed=["missing"])
    assert extracted == [7, 9, 12]
    assert planned.n_images == summary.n_images == 3
    assert digests(retried) == digests(whole)
    assert not (retried.path / BLOCKS).exists()


def test_another_retry_takes_nothing_over(retried: FeatureStore, whole: FeatureStore, extracted: list[int]) -> None:
    retried.run("extract", workers=0, retry_failed=True)
    assert sorted(extracted) == [1, 2, 5, 7, 9, 12]
    assert digests(retried) == digests(whole)
    assert not (retried.path / BLOCKS).exists()


def test_a_file_that_is_replaced_twice_is_not_taken_from_the_first_attempt(
    images: Path, begun: FeatureStore, whole: FeatureStore, tmp_path: Path, extracted: list[int]
) -> None:
    own = Path(shutil.copytree(images, tmp_path / "images"))
    store = with_images(whole, tmp_path / "store", own)
    for seed in (50, 51):
        for i in (3, 4, 8, 9):
            (own / f"{i:03d}.png").write_bytes(encoded(".png", picture(seed=seed + i)))
        if seed == 50:
            stop(store, after=2, replaced={0: frozenset({3, 4, 8, 9})})
    extracted.clear()
    store.run("extract", workers=0, check_images=True)
    assert sorted(extracted) == [3, 4, 8, 9]
    expected = with_images(begun, tmp_path / "expected", own)
    expected.run("extract", workers=0)
    assert digests(store) == digests(expected)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200] ^= 1  # in the rows, which no one reads until they are joined
    path.write_bytes(data)


def swap(path: Path) -> None:
    first, second, *_ = sorted(path.parent.iterdir())
    shutil.copy(second, first)


@pytest.mark.parametrize("damage", [cut, flip, swap])
def test_a_damaged_block_is_made_again(
    broken_off: FeatureStore, whole: FeatureStore, extracted: list[int], damage: Callable[[Path], None]
) -> None:
    root = Root(broken_off.path)
    named = block_names(root)[0]
    images = read_block(root, named).block.image_ids
    damage(root.local(named.name))
    broken_off.run("extract", workers=0)
    assert sorted(extracted) == sorted({*images, *range(FINISHED, N)})
    assert digests(broken_off) == digests(whole)
    assert not (broken_off.path / BLOCKS).exists()


class Noted(Silent):
    """Notes what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def test_a_block_that_can_not_be_read_is_left_with_a_word(broken_off: FeatureStore, whole: FeatureStore) -> None:
    before, noted = in_names(broken_off), Noted()
    with forbidden(broken_off.path / before[0]):
        blocks.remove_stale_blocks(context_of(broken_off, noted))
        (planned,) = broken_off.plan("extract")
    assert in_names(broken_off) == before
    assert [line.startswith(f"left alone: {broken_off.path / before[0]} can't be read: ") for line in noted.said] == [
        True
    ]
    assert planned.n_images > N - FINISHED
    broken_off.run("extract", workers=0)
    assert digests(broken_off) == digests(whole)


def test_a_block_of_a_newer_version_is_neither_used_nor_removed(
    broken_off: FeatureStore, monkeypatch: pytest.MonkeyPatch, extracted: list[int]
) -> None:
    from featurestore.storage import partition

    monkeypatch.setattr(partition, "FORMAT", 0)
    root, before = Root(broken_off.path), in_names(broken_off)
    blocks.remove_stale_blocks(context_of(broken_off))
    assert in_names(broken_off) == before
    assert root.local(before[0]).is_file()


def in_names(store: FeatureStore) -> list[str]:
    return [named.name for named in block_names(Root(store.path))]


def test_blocks_go_when_their_chunk_is_published(broken_off: FeatureStore, tmp_path: Path) -> None:
    """Killed between the record of a partition and the removal of its blocks."""
    kept = shutil.copytree(broken_off.path / BLOCKS, tmp_path / "kept")
    broken_off.run("extract", workers=0)
    shutil.copytree(kept, broken_off.path / BLOCKS)
    assert broken_off.run("extract", workers=0) == []
    assert not (broken_off.path / BLOCKS).exists()


def test_the_disk_check_counts_blocks(broken_off: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (planned,) = broken_off.plan("extract")
    assert planned.block_bytes * N == planned.n_bytes * (N - FINISHED)
    monkeypatch.setattr(Root, "free_bytes", lambda root: round(planned.n_bytes * SPARE) + 1)
    with pytest.raises(NotEnoughSpace, match="this run will write about"):
        broken_off.run("extract", workers=0)
    enough = round((planned.n_bytes + planned.block_bytes) * SPARE) + 1
    monkeypatch.setattr(Root, "free_bytes", lambda root: enough)
    assert len(broken_off.run("extract", workers=0)) == 1


def test_status_counts_the_images_in_blocks(broken_off: FeatureStore) -> None:
    def counted() -> list[int]:
        return [stage.n_in_blocks for stage in broken_off.status().stages]

    assert counted() == [FINISHED, 0, 0, 0, 0]
    configure(broken_off, "extract", max_pixels=40_000_000)
    assert counted() == [0, 0, 0, 0, 0]
    configure(broken_off, "extract", max_pixels=50_000_000)
    broken_off.run("extract", workers=0)
    assert counted() == [0, 0, 0, 0, 0]


def test_prune_counts_and_removes_what_no_run_goes_on_from(broken_off: FeatureStore, retried: FeatureStore) -> None:
    assert broken_off.prune().items == []
    assert in_blocks(broken_off) == list(range(FINISHED))
    names = in_names(retried)
    n_bytes = sum((retried.path / name).stat().st_size for name in names)
    for dry_run in (True, False):
        (item,) = retried.prune(dry_run=dry_run).items
        assert (item.n_files, item.n_bytes) == (len(names), n_bytes)
        assert "blocks" in item.what
        assert in_names(retried) == (names if dry_run else [])
    assert not (retried.path / BLOCKS).exists()


def test_the_other_verbs_pass_blocks_by(broken_off: FeatureStore, whole: FeatureStore, tmp_path: Path) -> None:
    before = in_names(broken_off)
    assert [p for p in broken_off.verify().problems if p.kind != "image"] == []
    broken_off.rebuild()
    other = copy(whole, tmp_path / "other")
    other.merge(broken_off.path)
    assert FeatureStore.open_untrusted(broken_off.path).sql("SELECT count(*) FROM images").fetchall() == [(N,)]
    assert in_names(broken_off) == before
    (summary,) = broken_off.run("extract", workers=0)
    assert summary.n_images == N - FINISHED
    assert rows_of(broken_off, "extract", chunk=0)[3].status == "ok"


def test_what_others_put_there_is_let_alone(broken_off: FeatureStore) -> None:
    notes = broken_off.path / BLOCKS / "notes.txt"
    notes.write_text("mine")
    broken_off.run("extract", workers=0)
    assert [path.name for path in (broken_off.path / BLOCKS).iterdir()] == ["notes.txt"]


def test_a_block_says_what_it_is_of(broken_off: FeatureStore) -> None:
    root = Root(broken_off.path)
    found = [read_block(root, named) for named in block_names(root)]
    assert len({block.attempt.identity for block in found}) == 1
    manifest = found[0].attempt.manifest
    assert manifest["policies"] == {"max_pixels": 50_000_000, "truncated": "refuse", "max_seconds": 600}
    assert (manifest["redo"], manifest["replaces"]) == (None, None)
    assert found[0].statuses <= {"ok", "unreadable"}
    assert json.dumps(dict(manifest)).count(str(broken_off.path)) == 0
