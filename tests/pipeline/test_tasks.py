"""How the work of a stage is cut: which file names are read at once, and what is handed to a worker."""

from __future__ import annotations

import shutil
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.catalog import Work, model_records
from featurestore.engines import Task
from featurestore.engines.base import T
from featurestore.engines.inline import InlineEngine
from featurestore.errors import CorruptFile
from featurestore.pipeline import ChunkWriter, Options, runner
from featurestore.pipeline import extract_run as extraction
from featurestore.pipeline.chunk_run import count_pieces
from featurestore.pipeline.runner import run_each
from featurestore.pipeline.tasks import JoinPieces, Target, TransformRows
from featurestore.rows import Layout, Row
from featurestore.storage import FORMAT, Writer, partition_writer, partitions
from featurestore.system import file_digest
from tests.conftest import LONG
from tests.small import configure, context_of, copy, digests, make_small, small_store
from tests.tampering import our_metadata

TINY = (80, 60)  # pixels of pictures with some 120 descriptors
RECIPE = {"fit_pca": {"n_components": 16, "samples_per_image": 80, "batch_size": 200}, "project": {"top": 60}}


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


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of five images in three chunks in which nothing was run, and the images beside it. Not to be changed."""
    folder = tmp_path_factory.mktemp("five")
    make_small(folder / "images", n=5, size=TINY)
    store = small_store(folder / "store", folder / "images", chunk_size=2)
    configure(store, "store", images="../images", dataset="../images/dataset.csv")
    return store


# Of chunks of 2, 2 and 1 images; other tests read all at once.
@pytest.mark.parametrize("names", [1, 4, *([10_000] if LONG else [])])
def test_how_many_are_read_at_once_changes_nothing(
    five: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int
) -> None:
    monkeypatch.setattr(extraction, "NAMES", names)
    images = Path(shutil.copytree(five.path.with_name("images"), tmp_path / "images"))
    store, with_one_failed = copy(five, tmp_path / "store"), copy(five, tmp_path / "other")
    store.run("extract", workers=0)
    found = store.sql("SELECT filename FROM descriptor_counts WHERE status = 'ok' ORDER BY image_id").fetchall()
    assert [name for (name,) in found] == [f"{i:03d}.png" for i in range(5)]
    (images / "002.png").unlink()
    before = digests(store, "partitions/extract/**/*")
    assert len(before) == 3
    with_one_failed.run("extract", workers=0)
    make_small(images, n=5, size=TINY)
    with_one_failed.run("extract", workers=0, retry_failed=True)
    assert digests(with_one_failed, "partitions/extract/**/*") == before


def test_rows_that_stay_are_found_by_their_image(tmp_path: Path) -> None:
    """A partition whose rows stand in another order is damaged, and none of them becomes another image's."""
    make_small(tmp_path / "images", n=4, size=TINY)
    (tmp_path / "images" / "001.png").unlink()
    store = small_store(tmp_path / "store", tmp_path / "images")
    store.run("extract", workers=0)
    (path,) = (store.path / "partitions" / "extract").rglob("*.parquet")
    pq.write_table(pq.read_table(path).take([0, 1, 3, 2]).replace_schema_metadata(our_metadata(path)), path)
    make_small(tmp_path / "images", n=4, size=TINY)
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


def fitted_store(folder: Path, chunk_size: int) -> FeatureStore:
    """Make a store of thirteen images, one of them missing, that is ready for project, with two rows a row group."""
    make_small(folder / "images", n=13, size=TINY)
    (folder / "images" / "002.png").unlink()
    store = small_store(folder / "store", folder / "images", chunk_size=chunk_size, recipe=RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition_writer, "ROW_GROUP_ROWS", 2)
        store.run("extract", "fit_pca", workers=0)
    return store


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Such a store of three chunks. Not to be changed."""
    return fitted_store(tmp_path_factory.mktemp("fitted"), 5)


@pytest.fixture(scope="module")
def projected(fitted: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The same store, with project by this process alone."""
    store = copy(fitted, tmp_path_factory.mktemp("projected") / "store")
    store.run("project", workers=0)
    return store


WHOLE, PIECE, JOIN = "TransformRows", "TransformRows", "JoinPieces"


@pytest.mark.parametrize(
    ("workers", "handed"),
    [
        (0, [WHOLE] * 3),
        (1, [WHOLE] * 3),
        (2, [WHOLE] * 2 + [PIECE] * 2 + [JOIN]),  # the last chunk has two row groups
        (3, [WHOLE] * 3),
        (4, [PIECE] * (3 + 3 + 2) + [JOIN] * 3),
        (64, [PIECE] * (3 + 3 + 2) + [JOIN] * 3),
    ],
)
def test_chunks_that_do_not_suffice_for_all_workers_are_shared(
    fitted: FeatureStore, projected: FeatureStore, tmp_path: Path, workers: int, handed: list[str]
) -> None:
    store = copy(fitted, tmp_path / "store")
    engine = Watched(workers)
    (summary,) = run_each(context_of(store), engine, Options(("project",), workers=workers), ["project"])
    assert sorted(engine.handed) == sorted(handed)
    assert summary is not None
    assert (summary.n_images, summary.n_chunks, dict(summary.statuses)) == (13, 3, {"ok": 12, "missing": 1})
    counted = projected.sql("SELECT sum(n_descriptors) FROM projected").fetchall()
    assert [(summary.n_descriptors,)] == counted
    assert digests(store) == digests(projected)
    assert not list(store.path.rglob(".tmp-*"))


@pytest.mark.parametrize(
    ("workers", "n_shared", "n_pieces"),
    [(2, 1, 4), (8, 1, 16), (8, 7, 10), (100, 1, 125), (1001, 991, 9), (1001, 1, 125), (1000, 999, 9)],
)
def test_many_chunks_that_many_workers_share_have_few_pieces_each(workers: int, n_shared: int, n_pieces: int) -> None:
    assert count_pieces(workers, n_shared, 125) == n_pieces
    assert count_pieces(workers, n_shared, 1) == 1


def test_one_chunk_has_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    fitted = fitted_store(tmp_path, 13)
    alone = copy(fitted, tmp_path / "alone")
    alone.run(workers=0)
    for workers in (1, 2, 3) if LONG else (3,):
        store = copy(fitted, tmp_path / str(workers))
        store.run(workers=workers)
        assert digests(store) == digests(alone), workers


class DyingOf(Watched):
    """An engine whose workers die of the images at some positions of a partition."""

    def __init__(self, workers: int, *positions: int) -> None:
        super().__init__(workers)
        self._positions = positions

    def submit(self, task: Task[T]) -> Future[list[T]]:
        if isinstance(task, TransformRows) and any(position in task.positions for position in self._positions):
            future: Future[list[T]] = Future()
            future.set_exception(BrokenExecutor("terminated abruptly {SIGSEGV(-11)}"))
            return future
        return super().submit(task)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_only_the_image_that_kills_a_worker_is_blamed(fitted: FeatureStore, tmp_path: Path, workers: int) -> None:
    store = copy(fitted, tmp_path / "store")
    run_each(context_of(store), DyingOf(workers, 1), Options(("project",), workers=workers), ["project"])
    found = store.sql("SELECT image_id, error FROM failures WHERE stage = 'project' AND status = 'crashed'").fetchall()
    died = "the worker process died on this image (SIGSEGV: segmentation fault)"
    assert sorted(found) == [(1, died), (6, died), (11, died)]
    assert not list(store.path.rglob(".tmp-*"))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class InterruptedJoin(Watched):
    """An engine that Ctrl-C ends when a chunk's pieces are complete."""

    def submit(self, task: Task[T]) -> Future[list[T]]:
        if isinstance(task, JoinPieces):
            interrupt()
        return super().submit(task)


def test_an_interrupted_run_leaves_no_pieces(
    fitted: FeatureStore, projected: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy(fitted, tmp_path / "store")
    monkeypatch.setattr(runner, "open_engine", lambda workers, *_, **__: InterruptedJoin(workers))
    with pytest.raises(KeyboardInterrupt):
        runner.run_stages(context_of(store), Options(("project",), workers=8))
    monkeypatch.undo()
    assert not list(store.path.rglob(".tmp-*"))
    store.run("project", workers=0)
    assert digests(store) == digests(projected)


@pytest.mark.parametrize("moment", ["before they are joined", "after the partition is recorded"])
def test_pieces_of_a_run_that_was_killed_are_removed_by_the_next(
    fitted: FeatureStore, projected: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    engine = InterruptedJoin(8) if moment == "before they are joined" else Watched(8)
    store = copy(fitted, tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(ChunkWriter, "abandon", lambda chunk: None)
        patch.setattr(Writer, "remove_draft", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_each(context_of(store), engine, Options(("project",), workers=8), ["project"])
    assert len(list(store.path.rglob(".tmp-*.parquet.0-2"))) > 0
    store.run("project", workers=0)
    assert not list(store.path.rglob(".tmp-*"))
    assert digests(store) == digests(projected)


def test_no_partition_is_read_back_for_its_digest(
    five: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(path.suffix)
        return file_digest(path)

    monkeypatch.setattr(model_records, "file_digest", noted)
    monkeypatch.setattr(partitions, "file_digest", noted)
    shutil.copytree(five.path.with_name("images"), tmp_path / "images")
    store = copy(five, tmp_path / "store")
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


def test_what_workers_begin_while_a_run_is_stopped_is_removed(
    five: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(five.path.with_name("images"), tmp_path / "images")
    store = copy(five, tmp_path / "store")
    monkeypatch.setattr(runner, "open_engine", lambda *_, **__: Hasty(store.path / "partitions"))
    (store.path / "partitions").mkdir(exist_ok=True)
    with pytest.raises(KeyboardInterrupt):
        store.run("extract", workers=1)
    assert not list(store.path.rglob(".tmp-*"))


def test_two_attempts_at_a_partition_share_no_file(tmp_path: Path) -> None:
    """Where a worker is taken for dead, both may be at work at the same time."""
    manifest = {"format": FORMAT, "stage": "extract", "variant": "0" * 16, "chunk_id": 0, "input_payload": "0" * 16}
    target = Target(tmp_path / ".tmp-000000000000-p", Layout(dim=4, dtype="uint8"), {**manifest, "n_images": 3})
    rows = [Row(number, f"{number}.png", "missing", "it is not there") for number in range(3)]
    whole = target.write(rows)
    late = target.write(row for row in rows if target.write(rows).path.is_file())
    assert late == whole
    assert file_digest(target.path) == whole.checksum
    with pytest.raises(ZeroDivisionError):
        target.write(row for row in rows if 1 // (2 - row.image_id))
    assert file_digest(target.path) == whole.checksum
    assert list(tmp_path.iterdir()) == [target.path]


class Growing(InlineEngine):
    """An engine to which workers come while it is asked for their number."""

    seen = 0

    @property
    def workers(self) -> int:  # type: ignore[override]
        self.seen += 1
        return min(self.seen, 3)


def test_the_record_of_a_run_has_the_most_workers_that_it_had(
    fitted: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy(fitted, tmp_path / "store")
    monkeypatch.setattr(runner, "open_engine", lambda *_, **__: Growing())
    store.run("project", "fit_scale", workers=0)
    found = store.sql("SELECT stage, workers FROM runs WHERE stage IN ('project', 'fit_scale') ORDER BY stage")
    assert found.fetchall() == [("fit_scale", 3), ("project", 3)]
