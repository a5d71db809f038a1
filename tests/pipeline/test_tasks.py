"""How the work of a stage is cut: which file names are read at once, and what is handed to a worker."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurestore.catalog import Work, records
from featurestore.engines import Task
from featurestore.engines.base import T
from featurestore.engines.inline import InlineEngine
from featurestore.errors import CorruptFile
from featurestore.pipeline import Options, runner
from featurestore.pipeline import extract_run as extraction
from featurestore.pipeline.runner import run_stage
from featurestore.system import file_digest
from tests.small import context_of, digests, make_small, small_store
from tests.tampering import our_metadata


def work(chunk_id: int, n_images: int) -> Work:
    return Work(chunk_id, 0, n_images, "never run", None, None, input_ready=True)


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [([3, 3, 3, 3], [[0, 1, 2], [3]]), ([99, 1], [[0], [1]]), ([1, 99, 1], [[0], [1], [2]]), ([9], [[0]])],
)
def test_chunks_are_taken_up_to_a_number_of_images(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], taken: list[list[int]]
) -> None:
    monkeypatch.setattr(extraction, "NAMES", 9)
    todo, found = [work(i, n) for i, n in enumerate(sizes)], []
    while todo:
        found.append([w.chunk_id for w in extraction._take_images(todo)])
    assert found == taken


@pytest.mark.parametrize("names", [1, 8, 10_000])
def test_how_many_are_read_at_once_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int) -> None:
    monkeypatch.setattr(extraction, "NAMES", names)
    images = tmp_path / "images"
    make_small(images, n=9)
    store = small_store(tmp_path / "store", images, chunk_size=4)
    store.run("extract", workers=0)
    found = store.sql("SELECT filename FROM descriptor_counts WHERE status = 'ok' ORDER BY image_id").fetchall()
    assert [name for (name,) in found] == [f"{i:03d}.png" for i in range(9)]
    (images / "002.png").unlink()
    before = digests(store, "partitions/extract/**/*")
    assert len(before) == 3
    with_one_failed = small_store(tmp_path / "other", images, chunk_size=4)
    with_one_failed.run("extract", workers=0)
    make_small(images, n=9)
    with_one_failed.run("extract", workers=0, retry_failed=True)
    assert digests(with_one_failed, "partitions/extract/**/*") == before


def test_rows_that_stay_are_found_by_their_image(tmp_path: Path) -> None:
    """A partition whose rows stand in another order is damaged, and none of them becomes another image's."""
    make_small(tmp_path / "images", n=4)
    (tmp_path / "images" / "001.png").unlink()
    store = small_store(tmp_path / "store", tmp_path / "images")
    store.run("extract", workers=0)
    (path,) = (store.path / "partitions" / "extract").rglob("*.parquet")
    pq.write_table(pq.read_table(path).take([0, 1, 3, 2]).replace_schema_metadata(our_metadata(path)), path)
    make_small(tmp_path / "images", n=4)
    with pytest.raises(CorruptFile, match="does not have one row for each image of its chunk, in order"):
        store.run("extract", workers=0, retry_failed=True)


class Watched(InlineEngine):
    """An engine that says it has workers, and notes what they were handed."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.handed: list[str] = []

    def submit(self, task: Task[T]) -> Future[list[T]]:
        self.handed.append(type(task).__name__)
        return super().submit(task)


@pytest.mark.parametrize(
    ("workers", "kind"), [(0, "RowBlock"), (1, "WholeChunk"), (2, "RowBlock")], ids=["inline", "few", "many"]
)
def test_workers_write_whole_partitions_where_there_are_enough_for_all(tmp_path: Path, workers: int, kind: str) -> None:
    images = tmp_path / "images"
    make_small(images, n=9)
    (images / "002.png").unlink()
    expected = small_store(tmp_path / "expected", images, chunk_size=4)
    expected.run(workers=0)
    store = small_store(tmp_path / "store", images, chunk_size=4)
    store.run("extract", "fit_pca", workers=0)
    engine, context = Watched(workers), context_of(store)
    summary = run_stage(context, engine, Options(("project",), workers=workers), "project")
    assert engine.handed == [kind] * 3
    assert summary is not None
    assert (summary.n_images, summary.n_chunks, dict(summary.statuses)) == (9, 3, {"ok": 8, "missing": 1})
    counted = expected.sql("SELECT sum(n_descriptors) FROM projected").fetchall()
    assert [(summary.n_descriptors,)] == counted
    assert digests(store, "partitions/project/**/*") == digests(expected, "partitions/project/**/*")


def test_no_partition_is_read_back_for_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(path.suffix)
        return file_digest(path)

    monkeypatch.setattr(records, "file_digest", noted)
    make_small(tmp_path / "images", n=9)
    store = small_store(tmp_path / "store", tmp_path / "images", chunk_size=4)
    store.run(workers=0)
    assert set(read) == {".npz"}, "models, which are small"
    found = store.sql("SELECT path, checksum FROM partitions").fetchall()
    assert len(found) == 9
    assert all(file_digest(store.path / path) == checksum for path, checksum in found)


class Hasty(InlineEngine):
    """An engine whose worker begins on one more file while the run is being stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def submit(self, task: Task[T]) -> Future[list[T]]:
        raise KeyboardInterrupt

    def close(self) -> None:
        (self._folder / ".tmp-0123456789ab-chunk-000001-new.parquet").touch()


def test_what_workers_begin_while_a_run_is_stopped_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    make_small(images, n=2)
    store = small_store(tmp_path / "store", images)
    monkeypatch.setattr(runner, "open_engine", lambda workers, name: Hasty(store.path / "partitions"))
    (store.path / "partitions").mkdir(exist_ok=True)
    with pytest.raises(KeyboardInterrupt):
        store.run("extract", workers=1)
    assert not list(store.path.rglob(".tmp-*"))
