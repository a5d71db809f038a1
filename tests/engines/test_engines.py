"""How work is handed out, and that it makes no difference to a single byte who does it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.engines import WINDOW, Task, dispatch_in_order, dispatch_tasks
from featurestore.engines.absent import refuse_absent_module
from featurestore.engines.inline import InlineEngine
from featurestore.engines.local import LocalEngine
from featurestore.errors import EngineLost, LossyDescriptors, PluginError
from featurestore.pipeline import Options, run_stages
from featurestore.progress import Silent
from featurestore.rows import Row
from tests.broken_images import NOT_IMAGES, bomb_png, cuttable, encoded, picture, unusual
from tests.conftest import LONG
from tests.once import copied, once
from tests.small import SMALL, configure, context_of, digests, rows_of, small_store, write_dataset


def broken(text: str) -> BrokenExecutor:
    """What loky raises where a task can't be unpickled."""
    error = BrokenExecutor("A task has failed to un-serialize")
    error.__cause__ = Exception(f"\n'''\nTraceback (most recent call last):\n  File\n{text}\n'''")
    return error


NO_SEMAPHORES = """
import _multiprocessing, errno, os

class Refused(_multiprocessing.SemLock):  # as where /dev/shm is read-only
    def __new__(cls, *args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

_multiprocessing.SemLock = Refused
from featurestore.engines import all_cores
from featurestore.engines.local import LocalEngine
from featurestore.errors import EngineLost
{counted}
try:
    LocalEngine(2).submit(None)
except EngineLost as error:
    print(error)
"""


@pytest.mark.parametrize("counted", ["", "all_cores()"])
def test_where_no_workers_can_be_the_error_says_it_alone(counted: str) -> None:
    code = NO_SEMAPHORES.format(counted=counted)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == (
        "2 worker processes could not be started (Read-only file system: /dev/shm). Finished work is kept; "
        "run the same command again with room in that folder, or with --workers 0\n"
    )
    assert done.stderr == ""


@dataclass(frozen=True)
class Numbered:
    """A task with a number."""

    chunk_id: int

    def run(self) -> list[Row]:
        return [Row(self.chunk_id, "", "ok")]

    def split(self) -> list[Task[Row]]:
        return [self]

    def crashed(self, reason: str) -> list[Row]:
        return [Row(self.chunk_id, "", "crashed", reason)]


KEPT = list[bytes]()


@dataclass(frozen=True)
class Keeping(Numbered):
    """A task after which the worker holds 400 MB more, and whose row tells the worker's pid."""

    def run(self) -> list[Row]:
        from joblib.externals.loky import process_executor

        process_executor._MEMORY_LEAK_CHECK_DELAY = -1  # loky looks after every task, and not once a second
        KEPT.append(b"x" * (400 << 20))
        return [Row(os.getpid(), "", "ok")]


def test_a_worker_that_keeps_memory_lives_on() -> None:
    """As after a large picture. psutil is installed with many packages, and changes what loky does."""
    pytest.importorskip("psutil")
    engine = LocalEngine(1)
    try:
        pids = [engine.submit(Keeping(number)).result()[0].image_id for number in range(3)]
    finally:
        engine.close()
    assert len(set(pids)) == 1


class SlowFirst(InlineEngine):
    """Finishes task 0 when it is told to, and with task 9 at the latest."""

    workers = 2

    def __init__(self) -> None:
        self.first: Future[list[Any]] = Future()
        self.begun: list[int] = []

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        self.begun.append(task.chunk_id)
        if task.chunk_id == 9:
            self.finish()
        return self.first if task.chunk_id == 0 else super().submit(task)

    def finish(self) -> None:
        if not self.first.done():
            self.first.set_result(Numbered(0).run())


def test_results_come_in_order_and_few_wait_for_a_slow_task() -> None:
    engine, asked, begun_before = SlowFirst(), [], []

    def size(results: list[Row]) -> int:
        asked.append(results[0].image_id)
        if asked.count(3) == 2 and not engine.first.done():  # the third that waits for task 0 is still waiting
            begun_before.extend(engine.begun)
            engine.finish()
        return 10

    tasks = [Numbered(number) for number in range(10)]
    found = list(dispatch_in_order(engine, tasks, most=20, size=size))
    assert found == [(task, task.run()) for task in tasks]
    assert begun_before == [0, 1, 2, 3, 4]  # 4 was drawn before a result was there


@pytest.mark.parametrize("n_tasks", [1, 5])
def test_a_worker_that_lacks_a_plugin_says_its_name_and_blames_no_image(
    monkeypatch: pytest.MonkeyPatch, n_tasks: int
) -> None:
    module = ModuleType("toy_of_this_process")
    kind = type("Absent", (Numbered,), {"__module__": module.__name__})
    module.Absent = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    engine = LocalEngine(1)
    try:
        with pytest.raises(PluginError) as caught:
            list(dispatch_tasks(engine, [kind(i) for i in range(n_tasks)]))
    finally:
        engine.close()
    assert str(caught.value) == (
        "the workers can't load what this process can: No module named 'toy_of_this_process'. Finished work "
        "is kept; install it where the workers run (pip install toy_of_this_process), then run the same command again"
    )


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ModuleNotFoundError("No module named 'cv2.gone'"), "No module named 'cv2.gone'.*pip install opencv-python-h"),
        (ImportError("libtorch.so: no such file"), "libtorch.so: no such file.*pip install PACKAGE"),
        (
            broken("AttributeError: Can't get attribute 'Toy' on <module 'click' from 'click.py'>"),
            r"Can't get attribute 'Toy' on <module 'click' from 'click.py'>.*pip install click==\d",
        ),
    ],
)
def test_what_workers_say_that_they_lack(error: Exception, advice: str) -> None:
    with pytest.raises(PluginError, match=advice):
        refuse_absent_module(error)


UNMAPPED = "cv2.abi3.so: failed to map segment from shared object"


@pytest.mark.parametrize("error", [ImportError(UNMAPPED), broken(f"ImportError: /site/{UNMAPPED}")])
def test_workers_without_memory_for_their_libraries_do_not_lack_a_package(error: Exception) -> None:
    with pytest.raises(EngineLost, match=rf"{UNMAPPED}\. Finished work is kept: give this process more memory, then"):
        refuse_absent_module(error)
    with pytest.raises(PluginError, match="Operation not permitted"):  # a disk from which nothing may be loaded
        refuse_absent_module(ImportError(f"{UNMAPPED}: Operation not permitted"))


@pytest.mark.parametrize(
    "error", [None, AttributeError("none of ours"), broken("a worker was killed"), BrokenExecutor()]
)
def test_what_else_goes_wrong_is_not_for_want_of_a_plugin(error: Exception | None) -> None:
    refuse_absent_module(error)


@dataclass
class ByHand:
    """An engine whose tasks are done when the test says so: at each wait, the newest that is in flight."""

    workers: int = 2
    slow: frozenset[int] = frozenset()  # tasks that are done only when nothing else is left
    flying: dict[int, Future[list[Any]]] = field(default_factory=dict)
    peak: int = 0
    handed: list[int] = field(default_factory=list)

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        future: Future[list[Any]] = Future()
        self.flying[task.chunk_id] = future
        self.handed.append(task.chunk_id)
        self.peak = max(self.peak, len(self.flying))
        if self.full():
            self.finish_one()
        return future

    def full(self) -> bool:
        return len(self.flying) == WINDOW * self.workers

    def finish_one(self) -> None:
        quick = [number for number in self.flying if number not in self.slow]
        number = max(quick or self.flying)
        self.flying.pop(number).set_result([Row(number, "", "ok")])

    def restart(self) -> None:
        raise AssertionError("nothing has died")

    def close(self) -> None:
        self.flying.clear()


def tasks(n: int, engine: ByHand) -> Iterator[Task[Row]]:
    yield from map(Numbered, range(n))
    while engine.flying:  # there will be no more submissions to finish them at
        engine.finish_one()


def test_tasks_are_yielded_as_they_finish_and_every_one_once() -> None:
    engine = ByHand(workers=2)
    found = [task.chunk_id for task, rows in dispatch_tasks(engine, tasks(30, engine)) if rows]
    assert found != sorted(found)
    assert sorted(found) == list(range(30))
    assert engine.handed == list(range(30)), "in order"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_two_tasks_a_worker_are_in_flight_and_never_more(workers: int) -> None:
    engine = ByHand(workers=workers)
    list(dispatch_tasks(engine, tasks(40, engine)))
    assert engine.peak == WINDOW * workers == 2 * workers


@pytest.mark.parametrize("workers", [1, 8])
def test_a_slow_task_holds_no_other_task_up(workers: int) -> None:
    engine = ByHand(workers=workers, slow=frozenset({3}))
    found = [task.chunk_id for task, _ in dispatch_tasks(engine, tasks(100 * workers, engine))]
    assert sorted(found) == list(range(100 * workers))
    assert 3 in found[-WINDOW * workers :]


def test_tasks_are_drawn_when_there_is_room_for_them() -> None:
    engine, drawn = ByHand(workers=1), []

    def drawing() -> Iterator[Task[Row]]:
        for number in range(10):
            drawn.append(number)
            yield Numbered(number)
        while engine.flying:
            engine.finish_one()

    first = next(iter(dispatch_tasks(engine, drawing())))
    assert first[0].chunk_id in (0, 1)
    assert len(drawn) <= WINDOW + 1, "the list of tasks may be longer than memory"


# Cut files are kept, so that their rows tell what the decoders had to say.
KEEPING = {**SMALL, "extract": {"truncated": "keep"}}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good, odd, broken, cut and missing files, and their dataset."""
    return once(tmp_path_factory, "mixed", make_mixed)


def make_mixed(folder: Path) -> None:
    files = {f"good-{i}.png": encoded(".png", picture(seed=i)) for i in range(6)}
    files |= NOT_IMAGES | {f"cut-{name}": data[: len(data) // 2] for name, data in cuttable().items()}
    files |= {f"odd-{name}": data for name, data in unusual().items()}
    files |= {"bomb.png": bomb_png(30_000, 30_000)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    names = [*sorted(files), "missing.jpg"]
    lines = [f"{name},{'test' if number % 5 == 0 else 'train'}" for number, name in enumerate(names)]
    write_dataset(folder, ["filename,subset", *lines])


@pytest.fixture(scope="module")
def alone(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The store that one process makes of them."""

    def make(folder: Path) -> None:
        small_store(folder / "store", mixed, chunk_size=20, recipe=KEEPING).run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "alone", make) / "store")


def test_the_folder_has_every_kind_of_row_in_it(alone: FeatureStore) -> None:
    statuses = {row.status for row in rows_of(alone, "quantize")}
    assert statuses == {"ok", "empty", "missing", "unreadable", "truncated", "too_large"}
    assert any(row.status == "ok" and row.error for row in rows_of(alone, "extract")), (
        "decoders that had to say something"
    )


@pytest.mark.parametrize("workers", [1, 2] if LONG else [2])
def test_workers_make_no_difference_to_any_byte(mixed: Path, alone: FeatureStore, tmp_path: Path, workers: int) -> None:
    store = small_store(tmp_path / "store", mixed, chunk_size=20, recipe=KEEPING)
    store.run(workers=workers)
    expected = digests(alone)
    assert len(expected) == 3 * alone.status().n_chunks + 2
    assert digests(store) == expected


class StopAfterImages(Silent):
    """Ends a run in the middle of a chunk."""

    def __init__(self, n_images: int) -> None:
        self.left = n_images

    def advance(self, n_images: int) -> None:
        self.left -= n_images
        if self.left < 0:
            raise KeyboardInterrupt


def test_neither_its_place_nor_an_end_in_the_middle_of_a_chunk_makes_a_difference(
    mixed: Path, alone: FeatureStore, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").symlink_to(mixed)
    place = tmp_path / "deep" / "down" / "store"
    store = small_store(place, tmp_path / "elsewhere", chunk_size=20, recipe=KEEPING)
    configure(store, "store", images="../../../elsewhere")
    for n_images in (25, 5):
        with pytest.raises(KeyboardInterrupt):
            run_stages(context_of(store, StopAfterImages(n_images)), Options(workers=0))
    store.run(workers=0)
    assert digests(store) == digests(alone)


@dataclass(frozen=True)
class Raising(Numbered):
    """A task that can't be done."""

    def run(self) -> list[Row]:
        raise LossyDescriptors("what SIFT gave can't be stored")


def test_an_error_of_the_store_ends_the_run_with_it() -> None:
    done: list[int] = []
    with pytest.raises(LossyDescriptors, match="what SIFT gave can't be stored"):
        done.extend(
            task.chunk_id
            for task, _ in dispatch_tasks(InlineEngine(), [Numbered(0), Numbered(1), Raising(2), Numbered(3)])
        )
    assert 3 not in done


def test_workers_end_without_a_word_whatever_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    engine = LocalEngine(2)
    for _ in range(3):
        futures = [engine.submit(Numbered(number)) for number in range(40)]
        futures[0].result()
        engine.restart()
    assert failed == []
