"""The copy of the catalog that a store keeps between questions: never old, never in the way, never changed."""

from __future__ import annotations

import gc
import os
import shutil
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from featurestore import FeatureStore
from featurestore.errors import CorruptFile, QueryError
from featurestore.query.kept_copy import KeptCopy, _put_away
from featurestore.storage import CATALOG
from tests import catalogs
from tests.small import configure, copy

COUNT = "SELECT count(*) FROM images"
REMOVE = "UPDATE images SET removed_by = 1 WHERE image_id = {}"


@pytest.fixture
def store(tiny: FeatureStore, tmp_path: Path) -> FeatureStore:
    return copy(tiny, tmp_path / "store")


def count(store: FeatureStore) -> int:
    ((n,),) = store.sql(COUNT).fetchall()
    return int(n)


def kept(store: FeatureStore) -> KeptCopy:
    assert store._catalog is not None
    assert isinstance(store._catalog.kept, KeptCopy)
    return store._catalog.kept


def in_another_process(work: Callable[[], None]) -> bool:
    gc.collect()  # what earlier tests have left is not for the child to close
    if not (child := os.fork()):
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def test_questions_to_an_unchanged_catalog_share_a_copy(store: FeatureStore) -> None:
    assert count(store) == 3
    first = kept(store)
    assert len(store.select(where="image_id < 2").matrix().image_ids) == 2
    assert store.sql("SELECT count(*) FROM failures").fetchall() == [(0,)]
    assert kept(store) is first


def test_a_commit_of_another_process_is_seen_whatever_the_times_of_the_file(store: FeatureStore) -> None:
    for n in (3, 2, 1):
        assert count(store) == n
        file = store.path / CATALOG
        before = file.stat()
        assert in_another_process(lambda: catalogs.change(store.path, REMOVE.format(n - 1)))  # noqa: B023
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert file.stat().st_size == before.st_size
    assert count(store) == 0


def test_a_commit_that_is_only_in_the_write_ahead_log_is_seen(store: FeatureStore) -> None:
    def killed() -> None:
        with catalogs.opened(store.path, read_only=False) as connection:
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            connection.execute(REMOVE.format(0))
            os._exit(0)

    assert count(store) == 3
    assert in_another_process(killed)
    assert (store.path / f"{CATALOG}.wal").exists()
    assert count(store) == 2


def test_what_is_kept_has_the_catalog_neither_open_nor_locked(store: FeatureStore) -> None:
    count(store)
    opened = {os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()}
    assert not [path for path in opened if path.startswith(str(store.path))]


def test_another_recipe_is_another_copy(store: FeatureStore) -> None:
    missing = "SELECT DISTINCT stage FROM missing ORDER BY ALL"
    assert store.sql(missing).fetchall() == []
    configure(store, "project", top=100)
    assert store.sql(missing).fetchall() == [("project",), ("quantize",)]


def test_a_store_that_was_made_again_at_its_path_is_another(store: FeatureStore, tmp_path: Path) -> None:
    other = copy(store, tmp_path / "other")
    catalogs.change(other.path, REMOVE.format(2))
    assert count(store) == 3
    shutil.rmtree(store.path)
    other.path.rename(store.path)
    assert count(store) == 2


def test_damage_of_the_catalog_is_noticed(store: FeatureStore) -> None:
    count(store)
    (store.path / CATALOG).write_bytes(b"no database")
    with pytest.raises(CorruptFile):
        count(store)


def test_a_question_leaves_nothing_behind(store: FeatureStore) -> None:
    everything = (
        "SELECT (SELECT count(*) FROM duckdb_tables()), (SELECT count(*) FROM duckdb_views()), count(*) FROM {}"
    )

    def left() -> list[tuple[int, ...]]:
        with kept(store)._instance.connect() as connection:
            found: list[tuple[int, ...]] = connection.execute(everything.format("duckdb_types()")).fetchall()
        return found

    count(store)
    first, before = kept(store), left()
    store.sql("SELECT sum(image_id) AS s FROM images")  # its result is stored
    store.sql("PIVOT images ON subset USING count(*)")  # DuckDB makes a type for it
    with store.answer("SELECT a.* FROM images a, images b, range(100_000)") as answer:
        next(answer.batches)  # the rest is not read
    assert kept(store) is first
    assert left() == before


def test_after_an_error_another_copy_is_made(store: FeatureStore) -> None:
    count(store)
    first = kept(store)
    with pytest.raises(QueryError, match="nothing"):
        store.sql("SELECT nothing FROM images")
    assert count(store) == 3
    assert kept(store) is not first


def test_threads_share_a_copy(store: FeatureStore) -> None:
    def ask(n: int) -> list[tuple[int, ...]]:
        return store.sql(f"SELECT sum(image_id + {n}) AS s FROM images").fetchall()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(40))) == [[(3 + 3 * n,)] for n in range(40)]


def test_a_forked_process_makes_its_own_and_leaves_that_of_its_parent(store: FeatureStore) -> None:
    def ask() -> None:
        assert count(store) == 3
        assert kept(store) is not first
        gc.collect()

    count(store)
    first = kept(store)
    assert in_another_process(ask)
    assert count(store) == 3
    assert kept(store) is first


def test_a_store_that_is_collected_leaves_no_folder(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    mine = FeatureStore(store.path)
    count(mine)
    assert len(list(scratch.iterdir())) == 1
    assert in_another_process(mine.__dict__.clear)
    assert len(list(scratch.iterdir())) == 1
    mine.__dict__.clear()
    gc.collect()
    assert not list(scratch.iterdir())


def test_a_process_ends_without_a_word_while_a_thread_asks(store: FeatureStore) -> None:
    began, end = Event(), Event()

    def wait() -> int:
        began.set()
        end.wait()
        return 1

    count(store)
    instance = kept(store)._instance
    with instance.connect() as connection, ThreadPoolExecutor(1) as thread:
        connection.create_function("wait_for_the_test", wait, [], "INTEGER", side_effects=True)
        asked = thread.submit(lambda: connection.execute("SELECT wait_for_the_test()").fetchall())
        try:
            assert began.wait(60)
            _put_away(instance, None, os.getpid())
        finally:
            end.set()
        assert asked.result() == [(1,)]


def test_a_large_catalog_is_not_kept(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.catalog.catalog.SMALL_BYTES", 0)
    assert count(store) == 3
    assert store._catalog is not None
    assert store._catalog.kept is None
