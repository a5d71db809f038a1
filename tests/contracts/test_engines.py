"""What every engine keeps to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

import pytest

from featurestore.engines import Engine, Task, dispatch_tasks, open_engine
from featurestore.engines.inline import InlineEngine
from featurestore.engines.local import LocalEngine
from featurestore.errors import EngineLost, LossyDescriptors
from featurestore.rows import Row


@dataclass(frozen=True)
class Squares:
    """Rows whose message is the square of the image's number; a number below 0 raises."""

    numbers: tuple[int, ...]
    chunk_id: int = 0

    def run(self) -> list[Row]:
        if min(self.numbers) < 0:
            raise LossyDescriptors(f"{min(self.numbers)} has no square here; use another number")
        return [Row(number, str(os.getpid()), "ok", str(number**2)) for number in self.numbers]

    def split(self) -> list[Task[Row]]:
        return [replace(self, numbers=(number,)) for number in self.numbers]

    def crashed(self, reason: str) -> list[Row]:
        return [Row(number, "", "crashed", reason) for number in self.numbers]


@pytest.fixture(
    params=[InlineEngine, lambda: LocalEngine(1), lambda: LocalEngine(2)], ids=["inline", "local1", "local2"]
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine: Engine = request.param()
    yield engine
    engine.close()


def results(rows: list[Row]) -> list[tuple[int, str | None]]:
    return [(row.image_id, row.error) for row in rows]


def test_a_task_becomes_its_rows_in_order(engine: Engine) -> None:
    future = engine.submit(Squares((3, 1, 2)))
    assert isinstance(future, Future)
    assert results(future.result()) == [(3, "9"), (1, "1"), (2, "4")]


def test_every_task_comes_back_once(engine: Engine) -> None:
    tasks = [Squares((i, i + 100), chunk_id=i) for i in range(25)]
    found = list(dispatch_tasks(engine, tasks))
    assert sorted(task.chunk_id for task, _ in found) == list(range(25))
    assert all(
        results(rows) == [(t.chunk_id, str(t.chunk_id**2)), (t.chunk_id + 100, str((t.chunk_id + 100) ** 2))]
        for t, rows in found
    )


def test_an_error_of_the_store_comes_back_as_it_is(engine: Engine) -> None:
    with pytest.raises(LossyDescriptors, match=r"^-3 has no square here; use another number$"):
        list(dispatch_tasks(engine, [Squares((1,)), Squares((-3,)), Squares((2,))]))


def test_after_an_error_the_engine_works_on(engine: Engine) -> None:
    with pytest.raises(LossyDescriptors):
        list(dispatch_tasks(engine, [Squares((-1,))]))
    assert [results(rows) for _, rows in dispatch_tasks(engine, [Squares((4,))])] == [[(4, "16")]]


class Poor(Squares):
    """A machine on which something does not suffice for two images at once, nor ever for one whose number is 7."""

    def run(self) -> list[Row]:
        if len(self.numbers) > 1 or 7 in self.numbers:
            raise self.lack()
        return super().run()

    def lack(self) -> Exception:
        return MemoryError()


class PoorInFiles(Poor):
    def lack(self) -> Exception:
        return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class PoorInThreads(Poor):
    def lack(self) -> Exception:
        return RuntimeError("can't start new thread")


@pytest.mark.parametrize("kind", [Poor, PoorInFiles, PoorInThreads])
def test_what_the_machine_lacks_is_tried_again_image_by_image(engine: Engine, kind: type[Poor]) -> None:
    rows = [row for _, rows in dispatch_tasks(engine, [kind((1, 2)), Squares((3, 4)), kind((5, 6))]) for row in rows]
    assert sorted(results(rows)) == [(i, str(i**2)) for i in range(1, 7)]


def test_memory_that_does_not_suffice_for_one_image_is_its_fault(engine: Engine) -> None:
    rows = [row for _, rows in dispatch_tasks(engine, [Poor((1, 2)), Poor((6, 7, 8))]) for row in rows]
    failed = [(row.image_id, row.status, row.error) for row in rows if row.status != "ok"]
    assert failed == [(7, "crashed", "Cannot allocate memory")]
    assert sorted(row.image_id for row in rows) == [1, 2, 6, 7, 8]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            PoorInFiles,
            "Too many open files, although no other task was running, so no image is to blame. Finished work is "
            "kept: raise the limit of open files (ulimit -n), then run the same command again",
        ),
        (
            PoorInThreads,
            "can't start new thread, although no other task was running, so no image is to blame. Finished work "
            "is kept: raise the limit of processes (ulimit -u), then run the same command again",
        ),
    ],
)
def test_what_no_image_takes_away_ends_the_run(engine: Engine, kind: type[Poor], message: str) -> None:
    with pytest.raises(EngineLost) as caught:
        list(dispatch_tasks(engine, [kind((1, 2)), kind((6, 7, 8))]))
    assert str(caught.value) == message


def test_it_can_be_restarted_and_closed_at_any_time(engine: Engine) -> None:
    engine.restart()
    assert results(engine.submit(Squares((2,))).result()) == [(2, "4")]
    engine.restart()
    assert results(engine.submit(Squares((3,))).result()) == [(3, "9")]
    engine.close()
    engine.close()


def test_nothing_is_begun_before_the_first_task(engine: Engine) -> None:
    engine.close()
    assert list(dispatch_tasks(engine, [])) == []


def test_work_is_done_where_the_engine_says(engine: Engine) -> None:
    pids = {int(rows[0].filename) for _, rows in dispatch_tasks(engine, [Squares((i,)) for i in range(8)])}
    assert (os.getpid() in pids) == (engine.workers == 0)
    assert 1 <= len(pids) <= max(engine.workers, 1)


def test_the_number_of_workers_chooses_the_engine() -> None:
    assert isinstance(open_engine(0), InlineEngine)
    engine = open_engine(3)
    assert isinstance(engine, LocalEngine)
    assert engine.workers == 3
